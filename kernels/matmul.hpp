// Matrix products in a fixed order: NUMERICS N1, N2, N3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"
#include "src/base/reduction.hpp"

namespace rankwise::kernels {

/// What a packed operand holds: for a result of `columns` columns, the terms of `contraction` in
/// its order. bf16 elements go in pairs (N1): each range of a leaf begins one, and an element left
/// over has a zero beside it.
struct PackSpec {
    DType dtype = DType::f32;  ///< f32 or bf16
    std::int64_t columns = 0;
    Contraction contraction;
    friend bool operator==(const PackSpec&, const PackSpec&) = default;
};

/// Which way round stacked weights W [outputs, inputs] are used.
enum class PackSide {
    outputs,  ///< y = x W^T: columns = stacked rows of W, contraction over the inputs
    inputs,   ///< dx = dy W: columns = inputs, contraction over the stacked rows
};

/// A weight in the device's own layout for its matmuls; the spec must outlive it.
struct PackedWeight {
    const PackSpec* spec = nullptr;
    DeviceSpan<const std::byte> data;
};

/// How a result meets its destination.
enum class Output {
    store,  ///< y = round(sum + bias)
    add,    ///< y = y + round(sum + bias): a residual; for gradients: one finished sum added to the
            ///< total
    resume,  ///< fp32 y holds the accumulators of an unfinished straight sum: they go on from
             ///< there; no bias
};

/// y[m, n] = sum_k x[m, k] w[n, k] + bias[n]. Per leaf of the contraction one fp32 accumulator from
/// zero (Output::resume: from y), fma, in the contraction's order; leaves combined by its tree;
/// bias added last; rounded to y's type (and once more after Output::add). Pairs of bf16 elements
/// (x0, w0), (x1, w1): acc = fma(x1, w1, acc), then fma(x0, w0, acc). A row's bits do not depend on
/// the other rows of the call, on threads or on the instruction set.
struct MatmulArgs {
    ConstMatrix x;  ///< [M, contraction indices] of the weight's type; the contraction's ranges
                    ///< index its columns
    PackedWeight w;
    Matrix y;                      ///< [M, columns]; f32, or x's type; may not alias x
    DeviceSpan<const float> bias;  ///< [columns] or empty
    Output output = Output::store;
};

/// dw[n, k] = sum_t dy[t, n] x[t, k], t ascending, one fp32 accumulator from zero an element;
/// Output as above. Tokens of bf16 operands go in pairs, as above, that begin anew in each segment.
struct WeightGradientArgs {
    ConstMatrix dy;  ///< [T, N] f32 or bf16
    ConstMatrix x;   ///< [T, K] of the same type
    Matrix dw;       ///< [N, K] f32; may not overlap dy or x
    Output output = Output::store;
    /// Borders of the segments, ascending, first 0, last T; empty: one. They change nothing for
    /// f32.
    std::span<const std::int64_t> segments;
};

/// db[n] = sum_t dy[t, n], t ascending, one fp32 accumulator from zero; Output::store or add.
struct BiasGradientArgs {
    ConstMatrix dy;  ///< [T, N] f32 or bf16
    DeviceSpan<float> db;
    Output output = Output::store;
};

class MatmulOps {
  public:
    virtual ~MatmulOps() = default;
    /// Bytes of a packed weight.
    [[nodiscard]] virtual std::int64_t packed_bytes(const PackSpec& spec) const = 0;
    /// Packs matrices stacked by rows (q over k over v; gate over up), f32 or bf16, all with the
    /// same columns; f32 is rounded to nearest even where the spec has bf16. `to` begins at a
    /// multiple of 64 bytes.
    /// @throws InternalError if that, or a size that the spec gives, does not hold.
    virtual void pack(const PackSpec& spec, PackSide side, std::span<const ConstMatrix> stacked,
                      DeviceSpan<std::byte> to, Stream& stream) = 0;
    virtual void matmul(const MatmulArgs& args, Stream& stream) = 0;
    virtual void weight_gradient(const WeightGradientArgs& args, Stream& stream) = 0;
    virtual void bias_gradient(const BiasGradientArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
