// Log-probabilities over the vocabulary and their gradient: NUMERICS N6. Sampler, reference, scorer
// and update use the same.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"
#include "src/base/reduction.hpp"

namespace rankwise::kernels {

/// For each row and each vocabulary leaf, with x = logit * inverse_temperature: the maximum m, s =
/// sum exp(x - m) and t = sum exp(x - m)(x - m), each in 16 lanes by column mod 16 (columns
/// ascending; t with fma) and a fixed lane tree. And target[row] = x at the row's target, if its
/// column is among these. A logit of -infinity counts as 0 in both sums; a NaN makes them NaN.
struct VocabularyStatisticsArgs {
    ConstMatrix
        logits;  ///< [T, columns] f32 or bf16: columns of the vocabulary from `first_column` on
    std::int64_t first_column = 0;
    /// Vocabulary ranges of the leaves, all inside these columns, each from a multiple of 16 on;
    /// empty: skipped.
    std::span<const Range> leaves;
    std::int64_t ids = 0;                        ///< columns from here on (padding) are excluded
    std::span<const float> inverse_temperature;  ///< [T], host
    std::span<const std::int32_t> targets;       ///< [T], host; -1: none
    DeviceSpan<float> statistics;  ///< [T, leaves, 3]: m, s, t; an empty leaf has s = 0
    DeviceSpan<float> target;      ///< [T]; written only for targets among these columns
};

/// Leaves merged by the tree with M = the largest m: c = exp(m - M), s -> c s, t -> c fma(m - M, s,
/// t), nodes left to right; leaves with s = 0 are skipped. logprob = (target - M) - log(S); entropy
/// = log(S) - T / S, where log(S) is taken in double and rounded once. NaN in a row makes its
/// logprob and entropy NaN.
struct MergeStatisticsArgs {
    DeviceSpan<const float> statistics;  ///< [T, tree.leaves(), 3]
    ReductionTree tree;                  ///< of at most 16 leaves
    std::int64_t rows = 0;
    DeviceSpan<const float> target;  ///< [T]
    DeviceSpan<float> logprob;       ///< [T]
    DeviceSpan<float> entropy;       ///< [T]; empty if not wanted
    DeviceSpan<float> maximum;       ///< [T] M, for the backward pass; empty if not wanted
    DeviceSpan<float> sum;           ///< [T] S
};

/// In place: logits -> coefficient * inverse_temperature * ([column == target] - exp(x - M) / S):
/// the gradient of sum coefficient * logprob. Excluded columns give 0.
struct LogprobGradientArgs {
    Matrix logits;  ///< [T, columns] f32 or bf16; the gradient is rounded once
    std::int64_t first_column = 0;
    std::int64_t ids = 0;
    std::span<const float> inverse_temperature;
    std::span<const std::int32_t> targets;
    std::span<const float> coefficient;  ///< [T], host: d loss / d logprob
    DeviceSpan<const float> maximum;
    DeviceSpan<const float> sum;
};

class SoftmaxOps {
  public:
    virtual ~SoftmaxOps() = default;
    virtual void vocabulary_statistics(const VocabularyStatisticsArgs& args, Stream& stream) = 0;
    virtual void merge_statistics(const MergeStatisticsArgs& args, Stream& stream) = 0;
    virtual void logprob_gradient(const LogprobGradientArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
