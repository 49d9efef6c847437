// Routing of tokens to experts: scores, the choice, the weights of the chosen, and how what the
// experts gave comes together. All matrices are f32. NUMERICS N4.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.hpp"

namespace rankwise::kernels {

/// How a router's logits become scores.
enum class Scoring : std::uint8_t {
    sigmoid,  ///< 1 / (1 + exp(-x)), DeepSeek-V3 (2024) eq. 15
    softmax,  ///< exp(x - m) / sum exp(x - m): 16 lanes by expert mod 16 and the fixed lane tree
};

/// What a group of experts is worth: the largest score in it, or the sum of the two largest
/// (DeepSeek-V3 section 2.1.2).
enum class GroupScore : std::uint8_t { largest, two_largest };

/// How a row chooses its experts and what they weigh.
struct Routing {
    Scoring scoring = Scoring::sigmoid;
    std::int64_t experts = 0;      ///< E
    std::int64_t chosen = 0;       ///< experts a row takes, K
    std::int64_t groups = 1;       ///< E is cut into so many equal groups
    std::int64_t kept_groups = 1;  ///< only experts of the best so many groups can be chosen
    GroupScore group_score = GroupScore::two_largest;
    bool normalise = false;  ///< weights are divided by the sum of the chosen scores + 1e-20
    float scale = 1.0F;      ///< then multiplied by this
    friend bool operator==(const Routing&, const Routing&) = default;
};

/// For each row: scores s; choice values s + bias; the kept groups; of their experts the K with the
/// largest choice value, ties to the lower id (groups: to the lower group). weights: of the chosen
/// scores without bias, (s / S) scale or s scale, S = the scores added in the order of their ids
/// from the first one, + 1e-20. A NaN is never larger than anything; K ids are given all the same.
struct GatingArgs {
    ConstMatrix logits;            ///< [T, E] f32
    DeviceSpan<const float> bias;  ///< [E], for the choice alone; or empty
    Routing routing;
    Matrix scores;   ///< [T, E], for the backward pass; may be the logits
    Matrix weights;  ///< [T, K], in the order of `experts`
    std::span<std::int32_t>
        experts;  ///< [T * K], host; a row's ids ascend; there when the call returns
};

/// dlogits of the weights' gradients; the choice has none. With u = s / S: ds = (dw - sum dw u)
/// scale / S where weights are normalised, else dw scale; sums over the chosen from zero, ids
/// ascending, products rounded. sigmoid: ds (s (1 - s)), 0 for experts that were not chosen;
/// softmax: s (ds - sum ds s), for all experts.
struct GatingBackwardArgs {
    ConstMatrix scores;
    ConstMatrix dweights;  ///< [T, K]
    std::span<const std::int32_t> experts;
    Routing routing;
    Matrix dlogits;  ///< [T, E]
};

/// to[t] (+)= the sum over i < K of weights[t, i] from[rows[t K + i]], i ascending, one fp32
/// accumulator with fma: Output::store: from zero; Output::resume: from what is there.
struct CombineRowsArgs {
    ConstMatrix from;                    ///< [R, columns]
    ConstMatrix weights;                 ///< [T, K]; without columns: ones
    std::span<const std::int64_t> rows;  ///< [T * K], host
    Matrix to;                           ///< [T, columns]; may not overlap from
    Output output = Output::store;       ///< store or resume
};

/// dfrom[rows[t K + i]] = weights[t, i] dto[t]; dweights[t, i] = the sum over columns of dto from:
/// 16 lanes by column mod 16, fma, and the fixed lane tree. Each of the R = T K rows occurs once.
struct CombineRowsBackwardArgs {
    ConstMatrix dto;      ///< [T, columns]
    ConstMatrix from;     ///< [T * K, columns]
    ConstMatrix weights;  ///< [T, K]
    std::span<const std::int64_t> rows;
    Matrix dfrom;     ///< [T * K, columns]; may be `from`
    Matrix dweights;  ///< [T, K]
};

class GatingOps {
  public:
    virtual ~GatingOps() = default;
    virtual void gating(const GatingArgs& args, Stream& stream) = 0;
    virtual void gating_backward(const GatingBackwardArgs& args, Stream& stream) = 0;
    virtual void combine_rows(const CombineRowsArgs& args, Stream& stream) = 0;
    virtual void combine_rows_backward(const CombineRowsBackwardArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
