// AdamW of one element in the contract's order, and in double.
#pragma once

#include "kernels/optimizer.hpp"
#include "tests/support/op_test.hpp"

namespace rankwise::test {

template <class Float>
struct AdamwState {
    Float parameter;
    Float m;
    Float v;
};

inline void reference_adamw(const kernels::AdamwArgs& args, float grad, AdamwState<float>& state) {
    const float g = grad * args.grad_scale;
    const auto rest1 = static_cast<float>(1.0 - args.beta1);
    const auto rest2 = static_cast<float>(1.0 - args.beta2);
    state.m = std::fma(rest1, g - state.m, state.m);
    state.v = std::fma(rest2, g * g, static_cast<float>(args.beta2) * state.v);
    const float decayed =
        std::fma(-(args.lr * args.weight_decay), state.parameter, state.parameter);
    const float direction =
        state.m / args.correction1 / (std::sqrt(state.v / args.correction2) + args.eps);
    state.parameter = std::fma(-args.lr, direction, decayed);
}

/// One step of the paper's algorithm 2.
inline void double_adamw(double lr, double beta1, double beta2, double eps, double decay, int step,
                         double g, AdamwState<double>& state) {
    state.m = beta1 * state.m + (1.0 - beta1) * g;
    state.v = beta2 * state.v + (1.0 - beta2) * g * g;
    const double m = state.m / (1.0 - std::pow(beta1, step));
    const double v = state.v / (1.0 - std::pow(beta2, step));
    state.parameter -= lr * (m / (std::sqrt(v) + eps) + decay * state.parameter);
}

}  // namespace rankwise::test
