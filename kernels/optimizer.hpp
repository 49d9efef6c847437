// AdamW, the gradient's norm and digests: what is done to parameters row by row.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::kernels {

/// AdamW (Loshchilov and Hutter 2019), elementwise in fp32: g = grad * grad_scale; m = fma(1 -
/// beta1, g - m, m); v = fma(1 - beta2, g g, beta2 v); p = fma(-(lr weight_decay), p, p); p =
/// fma(-lr, (m / c1) / (sqrt(v / c2) + eps), p). 1 - beta is taken in double and rounded once.
struct AdamwArgs {
    // Spans of one size, none overlapping another.
    DeviceSpan<float> parameter;
    DeviceSpan<const float> grad;
    DeviceSpan<float> m;
    DeviceSpan<float> v;
    float lr = 0.0F;
    double beta1 = 0.9;
    double beta2 = 0.999;
    float eps = 1e-8F;
    float weight_decay = 0.0F;
    float correction1 = 1.0F;  ///< c1 = 1 - beta1^step
    float correction2 = 1.0F;
    float grad_scale = 1.0F;  ///< of clipping
};

/// sums[r * pieces + p] = sum of x^2 over row r, columns pieces[p]: in double, 16 lanes by column
/// mod 16 from the piece's first on, fma, fixed lane tree. See src/base/exact_sum.hpp for what
/// comes next.
struct SquaredRowSumsArgs {
    ConstMatrix x;                  ///< f32
    std::span<const Range> pieces;  ///< column ranges; a whole row: one piece
    std::span<double> sums;         ///< host; there when the call returns
};

/// Sum modulo 2^128 over units (one row within one piece of columns; empty ones do not count): the
/// same whoever computes which units (N8). A unit's value is the XXH3-128 of its bytes with the
/// seed s(global row, global first column) = the low word of the XXH3-128 of these two int64
/// (little-endian) with the seed n = the low word of the XXH3-128 of the name.
struct DigestArgs {
    ConstMatrix x;
    std::string_view name;
    std::int64_t first_row = 0;     ///< global index of x's row 0
    std::int64_t first_column = 0;  ///< global index of x's column 0
    std::span<const Range> pieces;  ///< in columns of x
};

class OptimizerOps {
  public:
    virtual ~OptimizerOps() = default;
    virtual void adamw(const AdamwArgs& args, Stream& stream) = 0;
    virtual void squared_row_sums(const SquaredRowSumsArgs& args, Stream& stream) = 0;
    [[nodiscard]] virtual UInt128 digest(const DigestArgs& args, Stream& stream) = 0;
};

}  // namespace rankwise::kernels
