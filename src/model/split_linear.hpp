// Linear layers of which the ranks of the tensor axis hold columns, or which all of them hold.
#pragma once

#include <string_view>

#include "src/model/gradients.hpp"
#include "src/model/token_split.hpp"

namespace rankwise::model {

/// y = x W^T (+ bias), stored or added, where the ranks of the tensor axis hold columns of W: each
/// sums its leaves, and the tree above them ends the sum (N2). x has all rows (no columns on a rank
/// without terms), y those of this rank. Collective over the tensor axis of split weights.
void row_split_matmul(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                      std::string_view label, const sums::RankTree& ranks, kernels::ConstMatrix x,
                      kernels::PackedWeight w, DeviceSpan<const float> bias, kernels::Output output,
                      kernels::Matrix y);

/// The gradient of a matrix y = x W^T that every tensor rank holds: each computes some of its rows
/// over all tokens, and all get all (N2). dy and x have all rows. Collective over the tensor axis
/// of split weights.
void shared_gradient(Compute& compute, const Weights& weights, ParameterId id,
                     kernels::ConstMatrix dy, kernels::ConstMatrix x, GradientSink& gradients);

/// Stores a finished gradient where it belongs, or adds it. Both are dense.
void deliver(Compute& compute, kernels::ConstMatrix gradient, const GradientSlot& slot);

}  // namespace rankwise::model
