#include "kernels/cpu/cpu_device.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::embed(const EmbedArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("embed is not there yet");
}

void CpuDevice::embed_gradient(const EmbedGradientArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("embed_gradient is not there yet");
}

}  // namespace rankwise::kernels::cpu
