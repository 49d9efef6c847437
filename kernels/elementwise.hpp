// Ops without a sum: SwiGLU, adding, moving rows.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"

namespace rankwise::kernels {

/// out = silu(gate) * up, silu(a) = a / (1 + exp(-a)). gate_up is [gate | up].
struct SwigluArgs {
    ConstMatrix gate_up;  ///< [T, 2 * I]
    Matrix out;           ///< [T, I]
};

/// With s = 1 / (1 + exp(-gate)): dgate = dout up s (1 + gate (1 - s)), dup = dout gate s.
struct SwigluBackwardArgs {
    ConstMatrix gate_up;
    ConstMatrix dout;
    Matrix dgate_up;  ///< may be gate_up
};

/// to = to + from, one rounding an element.
struct AddArgs {
    ConstMatrix from;
    Matrix to;
};

/// to[i] = from[rows[i]].
struct GatherRowsArgs {
    ConstMatrix from;
    std::span<const std::int64_t> rows;  ///< host
    Matrix to;
};

/// to[r] = the sum of from[i] over the i with rows[i] == r, i ascending from the first of them;
/// rows without any become 0. (The last row of a shared prompt predicts the first token of every
/// sample.)
struct ScatterRowsArgs {
    ConstMatrix from;
    std::span<const std::int64_t> rows;
    Matrix to;
};

class ElementwiseOps {
  public:
    virtual ~ElementwiseOps() = default;
    virtual void swiglu(const SwigluArgs& args, Stream& stream) = 0;
    virtual void swiglu_backward(const SwigluBackwardArgs& args, Stream& stream) = 0;
    virtual void add(const AddArgs& args, Stream& stream) = 0;
    virtual void gather_rows(const GatherRowsArgs& args, Stream& stream) = 0;
    virtual void scatter_rows(const ScatterRowsArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
