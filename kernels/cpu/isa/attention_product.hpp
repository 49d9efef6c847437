// The one matrix product of attention: C[i][j] (+)= sum over s ascending of A[i][s] B[s][j], one
// accumulator an element, fma. Scores, probabilities times values, and all four gradients are this
// with different strides.
#pragma once

#include "kernels/cpu/isa/lanes.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {

struct Product {
    const float* a;  ///< A[i][s] = a[i * a_row + s * a_step]
    std::int64_t a_row;
    std::int64_t a_step;
    const float* b;  ///< B[s][j] = b[s * b_step + j]
    std::int64_t b_step;
    float*
        c;  ///< C[i][j] = c[i * c_row + j]; columns up to the next multiple of 16 are written too
    std::int64_t c_row;
    std::int64_t rows;
    std::int64_t columns;
    std::int64_t steps;
};

namespace product_detail {

using V = FloatRegister;
constexpr FloatTag kTag{};

/// R rows, N vectors wide: R * N accumulators in registers. kPart: one vector, of which the first
/// `part` columns exist.
template <int R, int N, bool kResume, bool kPart>
HWY_INLINE void tile(const Product& p, std::int64_t row, std::int64_t column, std::int64_t part) {
    static_assert(!kPart || N == 1);
    V sum[R][N];
    float* c = p.c + row * p.c_row + column;
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) {
            sum[i][j] = kResume ? hn::LoadU(kTag, c + i * p.c_row + j * kWidth) : hn::Zero(kTag);
        }
    }
    const auto mask = hn::FirstN(kTag, static_cast<size_t>(part));
    const float* a = p.a + row * p.a_row;
    const float* b = p.b + column;
    for (std::int64_t s = 0; s < p.steps; ++s) {
        V right[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) {
            right[j] = kPart ? hn::MaskedLoad(mask, kTag, b) : hn::LoadU(kTag, b + j * kWidth);
        }
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
            const V left = hn::Set(kTag, a[i * p.a_row]);
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) sum[i][j] = hn::MulAdd(left, right[j], sum[i][j]);
        }
        a += p.a_step;
        b += p.b_step;
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) hn::StoreU(sum[i][j], kTag, c + i * p.c_row + j * kWidth);
    }
}

/// Vectors that R rows may be wide so that accumulators and operands fit the registers (32 of
/// AVX-512, 16 of AVX2).
constexpr int widest(int rows) {
    return kWidth == 16 ? 4 : rows == 1 ? 8 : rows == 2 ? 4 : 2;
}

template <int R, int N, bool kResume>
HWY_INLINE void columns_of(const Product& p, std::int64_t row, std::int64_t& column) {
    for (; column + N * kWidth <= p.columns; column += N * kWidth) {
        tile<R, N, kResume, false>(p, row, column, 0);
    }
    if constexpr (N > 1) columns_of<R, N / 2, kResume>(p, row, column);
}

template <int R, bool kResume>
HWY_NOINLINE void rows_of(const Product& p, std::int64_t row) {
    std::int64_t column = 0;
    columns_of<R, widest(R), kResume>(p, row, column);
    if (column < p.columns) tile<R, 1, kResume, true>(p, row, column, p.columns - column);
}

}  // namespace product_detail

template <bool kResume>
HWY_NOINLINE void multiply(const Product& p) {
    namespace detail = product_detail;
    if (p.steps == 0 && kResume) return;
    std::int64_t row = 0;
    for (; row + 6 <= p.rows; row += 6) detail::rows_of<6, kResume>(p, row);
    if (kWidth == 8 && p.rows <= 4) {
        // Few rows stream B from memory: narrow registers take more of a line at once in pairs of
        // rows.
        for (; row + 2 <= p.rows; row += 2) detail::rows_of<2, kResume>(p, row);
    }
    switch (p.rows - row) {
        case 1:
            return detail::rows_of<1, kResume>(p, row);
        case 2:
            return detail::rows_of<2, kResume>(p, row);
        case 3:
            return detail::rows_of<3, kResume>(p, row);
        case 4:
            return detail::rows_of<4, kResume>(p, row);
        case 5:
            return detail::rows_of<5, kResume>(p, row);
        default:
            return;
    }
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
