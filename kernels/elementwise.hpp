// Ops without a sum: SwiGLU, adding, moving rows. Activations are f32 or bf16, all of a call alike
// (fill and add_in_order: f32); bf16 is computed in fp32 and each result rounded once, to nearest
// even.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"

namespace rankwise::kernels {

/// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(a) = a / (1 + exp(-a)). gate_up is [gate |
/// up].
struct SwigluArgs {
    ConstMatrix gate_up;  ///< [T, 2 * I]
    Matrix out;           ///< [T, I]; may not overlap gate_up
};

/// With s = 1 / (1 + exp(-gate)): dgate = dout up s (1 + gate (1 - s)), dup = dout gate s.
struct SwigluBackwardArgs {
    ConstMatrix gate_up;  ///< [T, 2 * I]
    ConstMatrix dout;     ///< [T, I]
    Matrix dgate_up;      ///< [T, 2 * I]; may be gate_up
};

/// to = to + from, one rounding an element. What is f32 is first rounded to the type of `to`: a
/// finished sum of partial sums is a result before it is added.
struct AddArgs {
    ConstMatrix from;  ///< of the type of `to`, or f32
    Matrix to;
};

/// to = ((to + from[0]) + from[1]) + …, f32, one rounding a step: what several add() in a row give,
/// while `to` is read and written once.
struct AddInOrderArgs {
    std::span<const DeviceSpan<const float>> from;  ///< host; each as long as `to`
    DeviceSpan<float> to;
};

/// to = from, rounded to the type of `to`.
struct RoundArgs {
    ConstMatrix from;  ///< f32
    Matrix to;         ///< f32 or bf16
};

/// Every element of `to`, f32, becomes `value`.
struct FillArgs {
    Matrix to;
    float value = 0.0F;
};

/// to[i] = from[rows[i]].
struct GatherRowsArgs {
    ConstMatrix from;
    std::span<const std::int64_t> rows;  ///< host
    Matrix to;  ///< [rows.size(), columns of from], of its type; may not overlap it
};

/// to[r] = the sum (fp32) of from[i] over the i with rows[i] == r, i ascending from the first of
/// them; rows without any become 0. (The last row of a shared prompt predicts the first token of
/// every sample.)
struct ScatterRowsArgs {
    ConstMatrix from;
    std::span<const std::int64_t> rows;  ///< [rows of from], host
    Matrix to;                           ///< [R, columns of from], of its type; may not overlap it
};

class ElementwiseOps {
  public:
    virtual ~ElementwiseOps() = default;
    virtual void swiglu(const SwigluArgs& args, Stream& stream) = 0;
    virtual void swiglu_backward(const SwigluBackwardArgs& args, Stream& stream) = 0;
    virtual void add(const AddArgs& args, Stream& stream) = 0;
    virtual void add_in_order(const AddInOrderArgs& args, Stream& stream) = 0;
    virtual void round(const RoundArgs& args, Stream& stream) = 0;
    virtual void fill(const FillArgs& args, Stream& stream) = 0;
    virtual void gather_rows(const GatherRowsArgs& args, Stream& stream) = 0;
    virtual void scatter_rows(const ScatterRowsArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
