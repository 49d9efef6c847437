// Weight and bias gradients of linear layers.
#pragma once

#include <span>

#include "src/model/context.hpp"
#include "src/model/gradients.hpp"

namespace rankwise::model {

/// A linear layer among others that are stacked: its rows of `dy` are these columns.
struct Linear {
    ParameterId weight;
    ParameterId bias;  ///< -1: none
    Range columns;
};

/// The gradient of a bias; nothing for id -1.
void bias_gradient(Compute& compute, ParameterId id, kernels::ConstMatrix dy,
                   GradientSink& gradients);

/// Of stacked linear layers with the same input x. Tokens of bf16 go in pairs inside each of the
/// segments whose borders are given; none: all are one.
void linear_gradients(Compute& compute, std::span<const Linear> linears, kernels::ConstMatrix dy,
                      kernels::ConstMatrix x, GradientSink& gradients,
                      std::span<const std::int64_t> segments = {});

}  // namespace rankwise::model
