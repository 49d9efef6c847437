// Gradients of the weights of norms: block sums of tokens, ascending (NUMERICS N2).
#pragma once

#include "src/model/token_split.hpp"
#include "src/model/weight_gradients.hpp"

namespace rankwise::model {

/// Of a norm of x [own rows, hidden] whose result has the gradient dy.
void norm_gradient(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                   kernels::ConstMatrix dy, kernels::ConstMatrix x, DeviceSpan<const float> inv_rms,
                   std::span<const std::int64_t> blocks, ParameterId id,
                   WeightGradients& gradients);

/// Of a norm over heads that tensor ranks hold parts of: in each block of rows the heads by the
/// tree, then the blocks ascending. Collective over the tensor axis.
void head_norm_gradient(Compute& compute, const Weights& weights, const sums::RankTree& ranks,
                        const kernels::RmsNormWeightGradientArgs& args, const GradientSlot& slot);

}  // namespace rankwise::model
