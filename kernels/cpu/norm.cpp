#include "kernels/cpu/cpu_device.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::rms_norm(const RmsNormArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("rms_norm is not there yet");
}

void CpuDevice::rms_norm_backward(const RmsNormBackwardArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("rms_norm_backward is not there yet");
}

void CpuDevice::rms_norm_weight_gradient(const RmsNormWeightGradientArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("rms_norm_weight_gradient is not there yet");
}

}  // namespace rankwise::kernels::cpu
