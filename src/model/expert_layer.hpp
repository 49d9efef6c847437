// The MLP of a layer with experts (DeepSeekMoE (2024) section 3): each token's output is that of
// the experts which its router chose, weighted, and of the shared experts. Forward and backward.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "src/model/dispatched_experts.hpp"
#include "src/model/token_split.hpp"
#include "src/model/weight_gradients.hpp"

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

/// What the backward pass reads. Matrices in scratch memory. Of T rows in all this rank routes R.
struct ExpertActivations {
    kernels::Matrix scores;   ///< [R, E]
    kernels::Matrix weights;  ///< [R, K]
    std::vector<std::int32_t> chosen;
    ExpertRows rows;
    std::optional<parallel::DispatchPlan> plan;  ///< of experts that are shared out
    kernels::Matrix gate_up;                     ///< [R K, 2 I], sorted; not of those
    kernels::Matrix activated;                   ///< [R K, I]; not of those
    kernels::Matrix output;                      ///< [R K, hidden], not weighted
    kernels::Matrix shared_gate_up;    ///< [T, 2 S]; only with shared experts, of this rank's part
    kernels::Matrix shared_activated;  ///< [T, S]
};

// Routed experts are not split over tensor ranks (N4), each of which takes rows of its own: in
// training those of its residual stream, in generation an even share of all. It has all experts, or
// (dispatched_experts.hpp) some of them. Shared experts are split as an MLP is. Collective over the
// tensor axis of split weights, and over the axis of experts that are shared out.

/// Allocates what the forward pass writes: to be kept, or as scratch.
[[nodiscard]] ExpertActivations allocate_experts(Compute& compute, const Weights& weights,
                                                 const TokenSplit& tokens, bool keep);

/// Adds to y [own rows, hidden] the output for the normed rows x [all rows, hidden]: sum of w y
/// from zero by ascending expert id, then the shared experts' is added (N4), then all of it to y.
void experts_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                     const TokenSplit& tokens, kernels::ConstMatrix x, ExpertActivations& at,
                     kernels::Matrix y);

/// dy [all rows, hidden]: gradient of the output. dx [own rows, hidden] is overwritten with the
/// gradient of x: the router's, experts ascending, the shared experts'. Parameter gradients go to
/// `gradients`, for which `kept` and the matrices given stay as they are. An expert without tokens
/// gives its weights nothing: a gradient that is stored for others to add is -0, which changes no
/// sum.
void experts_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                      const TokenSplit& tokens, const ExpertActivations& kept,
                      kernels::ConstMatrix x, kernels::ConstMatrix dy, WeightGradients& gradients,
                      kernels::Matrix dx);

}  // namespace rankwise::model
