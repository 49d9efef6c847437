#include "kernels/cpu/cpu_device.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

void CpuDevice::vocabulary_statistics(const VocabularyStatisticsArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("vocabulary_statistics is not there yet");
}

void CpuDevice::merge_statistics(const MergeStatisticsArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("merge_statistics is not there yet");
}

void CpuDevice::logprob_gradient(const LogprobGradientArgs& /*args*/, Stream& /*stream*/) {
    throw InternalError("logprob_gradient is not there yet");
}

}  // namespace rankwise::kernels::cpu
