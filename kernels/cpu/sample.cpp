#include "kernels/cpu/cpu_device.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::sample(const SampleArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("sample is not there yet");
}

void CpuDevice::filtered_probabilities(const FilteredProbabilitiesArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("filtered_probabilities is not there yet");
}

}  // namespace rankwise::kernels::cpu
