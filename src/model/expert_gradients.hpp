// Gradients of the weights of gated MLPs: shared experts, and routed ones, which some tokens chose.
#pragma once

#include <array>
#include <span>

#include "src/model/gradients.hpp"
#include "src/model/weights.hpp"

namespace rankwise::model {

/// What the gradients of a gated MLP are computed from: a row a token.
struct MlpRows {
    kernels::ConstMatrix input;      ///< [R, hidden]
    kernels::ConstMatrix activated;  ///< [R, I]
    kernels::ConstMatrix dgate_up;   ///< [R, 2 I]
    kernels::ConstMatrix doutput;    ///< [R, hidden]
};

void mlp_gradients(Compute& compute, const MlpIds& ids, const MlpRows& rows,
                   GradientSink& gradients);

/// Where the gradients of an expert go: of down, gate, up.
using MlpSlots = std::array<GradientSlot, 3>;

/// An expert without rows gives its weights nothing: a gradient that is stored for others to add is
/// -0, which changes no sum.
void no_gradient(Compute& compute, const MlpSlots& slots);

/// Of routed experts, whose rows of a micro-batch are sorted by expert and then by token (N4).
///
/// Where tensor ranks have tokens of their own, which ascend with the ranks, they go through the
/// experts in rounds of as many as there are ranks: each brings the rows of one expert together,
/// sums its gradient, and all get all, of which a rank keeps those of the experts that it has.
/// Collective over the tensor axis of split weights.
/// @param tokens  of the micro-batch, on all ranks: no expert has more rows
void routed_gradients(Compute& compute, const Weights& weights, std::span<const MlpIds> ids,
                      std::span<const Range> experts, const MlpRows& rows, std::int64_t tokens,
                      GradientSink& gradients);

}  // namespace rankwise::model
