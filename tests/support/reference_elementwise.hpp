// SwiGLU of one pair of values: in float in the contract's order, and in double.
#pragma once

#include "tests/support/op_test.hpp"

namespace rankwise::test {

struct GateUp {
    float gate;
    float up;
};

inline float reference_swiglu(float gate, float up) {
    return gate / (1.0F + exp32(-gate)) * up;
}

inline GateUp reference_swiglu_backward(float gate, float up, float dout) {
    const float s = 1.0F / (1.0F + exp32(-gate));
    return {dout * up * (s * std::fma(gate, 1.0F - s, 1.0F)), dout * (gate * s)};
}

inline double double_swiglu(double gate, double up) {
    return gate / (1.0 + std::exp(-gate)) * up;
}

}  // namespace rankwise::test
