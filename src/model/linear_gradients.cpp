#include "src/model/linear_gradients.hpp"

namespace rankwise::model {

using kernels::ConstMatrix;

void bias_gradient(Compute& compute, ParameterId id, ConstMatrix dy, GradientSink& gradients) {
    if (id < 0) return;
    const GradientSlot bias = gradients.slot(id);
    compute.device.bias_gradient({.dy = dy, .db = bias.vector(), .output = bias.output},
                                 compute.stream);
}

void linear_gradients(Compute& compute, std::span<const Linear> linears, ConstMatrix dy,
                      ConstMatrix x, GradientSink& gradients,
                      std::span<const std::int64_t> segments) {
    for (const Linear& linear : linears) {
        const ConstMatrix part = dy.col_range(linear.columns);
        const GradientSlot weight = gradients.slot(linear.weight);
        compute.device.weight_gradient({.dy = part,
                                        .x = x,
                                        .dw = weight.matrix,
                                        .output = weight.output,
                                        .segments = segments},
                                       compute.stream);
        bias_gradient(compute, linear.bias, part, gradients);
    }
}

}  // namespace rankwise::model
