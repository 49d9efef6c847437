#include "kernels/cpu/cpu_device.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::rope(const RopeArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("rope is not there yet");
}

}  // namespace rankwise::kernels::cpu
