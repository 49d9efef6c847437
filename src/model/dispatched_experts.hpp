// Routed experts that are shared out over ranks (N4): rows travel to the ranks that have their
// experts and what these give travels back, in rounds of fixed buffers.
#pragma once

#include <vector>

#include "parallel/expert_dispatch.hpp"
#include "src/model/expert_gradients.hpp"

namespace rankwise::model {

/// The plan of a pass, which its backward pass goes by too. Collective over the expert axis.
/// @param experts  this rank's rows of each expert of a layer, sorted; all empty on a rank that has
/// no tokens and takes part for the others
[[nodiscard]] parallel::DispatchPlan plan_dispatch(const Weights& weights,
                                                   std::span<const Range> experts);

/// output[i] = what row i's expert gives for x[tokens[i]], rows sorted by expert and then by token.
/// Collective over the expert axis.
void dispatched_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                        const parallel::DispatchPlan& plan, kernels::ConstMatrix x,
                        std::span<const std::int64_t> tokens, kernels::Matrix output);

/// What the gradients of experts' weights are computed from besides input and output, of rows that
/// this rank routes.
struct InnerRows {
    kernels::Matrix activated;  ///< [rows, width]
    kernels::Matrix dgate_up;   ///< [rows, 2 width]
};

/// The gradients of `dispatched_forward`, for which holders compute its inner activations again:
/// `doutput` of its output gives `dinput` of its rows (one for each of `tokens`; empty: not wanted)
/// and those of the weights to `gradients` (null: not wanted), of each chunk its own, tokens
/// ascending; or (null: not wanted) sends what these are computed from back to whoever routes the
/// rows. Collective over the expert axis; all ranks want the same.
void dispatched_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                         const parallel::DispatchPlan& plan, kernels::ConstMatrix x,
                         std::span<const std::int64_t> tokens, kernels::ConstMatrix doutput,
                         kernels::Matrix dinput, GradientSink* gradients,
                         const InnerRows* inner_rows = nullptr);

}  // namespace rankwise::model
