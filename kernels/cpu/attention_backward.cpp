#include "kernels/attention.hpp"
#include "kernels/cpu/cpu_device.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::segment_attention_backward(const SegmentAttentionBackwardArgs& /*args*/,
                                           Stream& /*stream*/) {
    throw InternalError("segment_attention_backward: not on this device");
}

}  // namespace rankwise::kernels::cpu
