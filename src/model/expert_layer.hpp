// The MLP of a layer with experts (DeepSeekMoE (2024) section 3): each token's output is that of
// the experts which its router chose, weighted, and of the shared experts. Forward and backward.
#pragma once

#include <cstdint>
#include <vector>

#include "src/model/weight_gradients.hpp"
#include "src/model/weights.hpp"

namespace rankwise::model {

/// Which rows of the tokens' outputs, sorted by expert and then by token, are whose: an expert's
/// tokens of a micro-batch are one segment (N1, N4).
struct ExpertRows {
    std::vector<std::int64_t> tokens;  ///< [T K]: the token of each row
    std::vector<std::int64_t> places;  ///< [T K]: row of token t's i-th expert: places[t K + i]
    std::vector<Range> experts;        ///< rows of each expert; may be empty
};

/// @param chosen  [T K]: experts of each token, ascending
[[nodiscard]] ExpertRows sort_by_expert(std::span<const std::int32_t> chosen, std::int64_t experts,
                                        std::int64_t each);

/// What the backward pass reads. Matrices in scratch memory.
struct ExpertActivations {
    kernels::Matrix scores;   ///< [T, E]
    kernels::Matrix weights;  ///< [T, K]
    std::vector<std::int32_t> chosen;
    ExpertRows rows;
    kernels::Matrix gate_up;           ///< [T K, 2 I], sorted
    kernels::Matrix activated;         ///< [T K, I]
    kernels::Matrix output;            ///< [T K, hidden], not weighted
    kernels::Matrix shared_gate_up;    ///< [T, 2 S]; only with shared experts
    kernels::Matrix shared_activated;  ///< [T, S]
};

/// Allocates what the forward pass writes for `rows` rows: to be kept, or as scratch.
[[nodiscard]] ExpertActivations allocate_experts(Compute& compute, const Weights& weights,
                                                 std::int64_t rows, bool keep);

/// Adds to y [T, hidden] the output for the normed rows x: sum of w y from zero by ascending expert
/// id, then the shared experts' is added (N4), then all of it to y.
void experts_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                     kernels::ConstMatrix x, ExpertActivations& at, kernels::Matrix y);

/// dy: gradient of the output. dx is overwritten with the gradient of x: the router's, experts
/// ascending, the shared experts'. Parameter gradients go to `gradients`, for which `kept` and
/// the matrices given stay as they are. An expert without tokens gives its weights nothing: a
/// gradient that is stored for others to add is -0, which changes no sum.
void experts_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                      const ExpertActivations& kept, kernels::ConstMatrix x,
                      kernels::ConstMatrix dy, WeightGradients& gradients, kernels::Matrix dx);

}  // namespace rankwise::model
