#include "kernels/cpu/cpu_device.hpp"

namespace rankwise::kernels::cpu {

std::int64_t CpuDevice::packed_bytes(const PackSpec&) const {
    throw InternalError("packed_bytes: not in this build yet");
}
void CpuDevice::pack(const PackSpec&, PackSide, std::span<const ConstMatrix>, DeviceSpan<std::byte>,
                     Stream&) {
    throw InternalError("pack: not in this build yet");
}
void CpuDevice::matmul(const MatmulArgs&, Stream&) {
    throw InternalError("matmul: not in this build yet");
}
void CpuDevice::weight_gradient(const WeightGradientArgs&, Stream&) {
    throw InternalError("weight_gradient: not in this build yet");
}
void CpuDevice::bias_gradient(const BiasGradientArgs&, Stream&) {
    throw InternalError("bias_gradient: not in this build yet");
}

}  // namespace rankwise::kernels::cpu
