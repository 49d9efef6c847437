#include "src/model/split_linear.hpp"

#include <array>

#include "src/model/linear_gradients.hpp"

namespace rankwise::model {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

void row_split_matmul(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                      std::string_view label, const sums::RankTree& ranks, ConstMatrix x,
                      kernels::PackedWeight w, DeviceSpan<const float> bias, Output output,
                      Matrix y) {
    if (!weights.split()) {
        compute.device.matmul({.x = x, .w = w, .y = y, .bias = bias, .output = output},
                              compute.stream);
        return;
    }
    const kernels::Arena::Scope scope(compute.arena);
    Matrix partial;
    if (x.cols > 0) {
        partial = compute.matrix(x.rows, y.cols);
        compute.device.matmul({.x = x, .w = w, .y = partial}, compute.stream);
    }
    const sums::Meeting meeting{.bias = bias, .add = output == Output::add};
    if (tokens.split()) {
        sums::reduce_scatter(compute.tools(), weights.tensor(), label, ranks, partial,
                             tokens.rows(), y, meeting);
    } else {
        sums::all_reduce(compute.tools(), weights.tensor(), label, ranks, partial, y, meeting);
    }
}

void shared_gradient(Compute& compute, const Weights& weights, ParameterId id, ConstMatrix dy,
                     ConstMatrix x, GradientSink& gradients) {
    if (!weights.split()) {
        linear_gradients(compute, std::array{Linear{id, -1, {0, dy.cols}}}, dy, x, gradients);
        return;
    }
    const GradientSlot slot = gradients.slot(id);
    const kernels::Arena::Scope scope(compute.arena);
    std::vector<Range> rows;
    for (int rank = 0; rank < weights.part().place.degree; ++rank)
        rows.push_back(split(dy.cols, weights.part().place.degree, rank));
    const Range own = rows[static_cast<std::size_t>(weights.part().place.rank)];
    const Matrix mine = compute.matrix(own.size(), x.cols);
    const Matrix whole = compute.matrix(dy.cols, x.cols);
    if (!own.empty())
        compute.device.weight_gradient({.dy = dy.col_range(own), .x = x, .dw = mine},
                                       compute.stream);
    sums::all_gather(compute.tools(), weights.tensor(), "gradients:shared", rows, mine, whole);
    deliver(compute, whole, slot);
}

void deliver(Compute& compute, ConstMatrix gradient, const GradientSlot& slot) {
    if (slot.output == Output::add) {
        compute.device.add({.from = gradient, .to = slot.matrix}, compute.stream);
    } else {
        compute.copy(gradient, slot.matrix);
    }
}

}  // namespace rankwise::model
