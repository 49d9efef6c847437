#include "kernels/attention.hpp"

#include "kernels/cpu/cpu_device.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::kv_write(const KvWriteArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("kv_write: not on this device");
}

void CpuDevice::kv_copy(const KvCopyArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("kv_copy: not on this device");
}

void CpuDevice::paged_attention(const PagedAttentionArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("paged_attention: not on this device");
}

void CpuDevice::segment_attention(const SegmentAttentionArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("segment_attention: not on this device");
}

}  // namespace rankwise::kernels::cpu
