// The one matrix product of attention: C[i][j] (+)= sum over s ascending of A[i][s] B[s][j], one
// accumulator an element, fma. Scores, probabilities times values, and all four gradients are this
// with different strides and kinds of rows.
#pragma once

#include <utility>

#include "kernels/cpu/isa/lanes.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {

constexpr std::int64_t kTile = 6;  // most rows whose sums stay in registers

template <class Element>
struct ProductOf {
    const float* a;  ///< A[i][s] = a[i * a_row + s * a_step]
    std::int64_t a_row;
    std::int64_t a_step;
    const Element* b;  ///< B: as the kind of rows says
    std::int64_t b_step;
    /// C[i][j] = c[i * c_row + j]; columns up to the next multiple of 16 are written too
    float* c;
    std::int64_t c_row;
    std::int64_t rows;
    std::int64_t columns;
    std::int64_t steps;
    const Element* ahead = nullptr;  ///< of kinds that fetch ahead: a B that is read soon
    std::int64_t b_panel = 0;        ///< of kinds in panels: from one to the next
};
using Product = ProductOf<float>;

// Kinds of rows of B. Where both sides were bf16, steps go in pairs, the second of a pair first
// (N1). load<kTerm, kPart>: the kTerm-th that is done of the kSteps steps at b; kPart: only the
// first `part` columns exist, which `mask` has.

/// B[s][j] = b[s * b_step + j].
struct FloatRows {
    static constexpr bool kFetches = false;
    static constexpr bool kInPanels = false;
    using Element = float;
    static constexpr int kSteps = 1;
    static constexpr int kAdvance = 1;  ///< b_steps from some steps to the next
    template <int kTerm, bool kPart>
    static HWY_INLINE FloatRegister load(const float* b, std::int64_t /*b_step*/,
                                         hn::Mask<FloatTag> mask, std::int64_t /*part*/) {
        return kPart ? hn::MaskedLoad(mask, FloatTag(), b) : hn::LoadU(FloatTag(), b);
    }
};

/// The same, in pairs.
struct FloatPairs {
    static constexpr bool kFetches = false;
    static constexpr bool kInPanels = false;
    using Element = float;
    static constexpr int kSteps = 2;
    static constexpr int kAdvance = 2;
    template <int kTerm, bool kPart>
    static HWY_INLINE FloatRegister load(const float* b, std::int64_t b_step,
                                         hn::Mask<FloatTag> mask, std::int64_t part) {
        return FloatRows::load<0, kPart>(b + (1 - kTerm) * b_step, b_step, mask, part);
    }
};

/// bf16 elements in the place of floats.
struct Bf16Rows {
    static constexpr bool kFetches = false;
    static constexpr bool kInPanels = false;
    using Element = std::uint16_t;
    static constexpr int kSteps = 1;
    static constexpr int kAdvance = 1;
    template <int kTerm, bool kPart>
    static HWY_INLINE FloatRegister load(const std::uint16_t* b, std::int64_t /*b_step*/,
                                         hn::Mask<FloatTag> /*mask*/, std::int64_t part) {
        const hn::Rebind<std::uint16_t, WordTag> elements;
        std::uint16_t some[kWidth] = {};
        if constexpr (kPart) {
            for (std::int64_t j = 0; j < part; ++j) some[j] = b[j];
            b = some;
        }
        return hn::BitCast(FloatTag(),
                           hn::ShiftLeft<16>(hn::PromoteTo(WordTag(), hn::LoadU(elements, b))));
    }
};

/// Words of two bf16 elements, of step 2 s in the low half and of 2 s + 1: b[s * b_step + j].
struct Bf16Pairs {
    static constexpr bool kFetches = false;
    static constexpr bool kInPanels = false;
    using Element = std::uint32_t;
    static constexpr int kSteps = 2;
    static constexpr int kAdvance = 1;
    template <int kTerm, bool kPart>
    static HWY_INLINE FloatRegister load(const std::uint32_t* b, std::int64_t /*b_step*/,
                                         hn::Mask<FloatTag> mask, std::int64_t /*part*/) {
        const auto words = kPart ? hn::MaskedLoad(hn::RebindMask(WordTag(), mask), WordTag(), b)
                                 : hn::LoadU(WordTag(), b);
        return hn::BitCast(FloatTag(), kTerm == 0 ? hn::And(words, hn::Set(WordTag(), 0xFFFF0000U))
                                                  : hn::ShiftLeft<16>(words));
    }
};

/// The same rows while those at `ahead`, which lie alike, are fetched into the second-level cache:
/// for what comes from memory in pieces too short for the processor to see that it is read in
/// order.
template <class Rows>
struct Fetching : Rows {
    static constexpr bool kFetches = true;
};

/// Rows of 16 columns, those of the next 16 a panel further.
template <class Rows>
struct InPanels : Rows {
    static constexpr bool kInPanels = true;
};

namespace product_detail {

using V = FloatRegister;
constexpr FloatTag kTag{};

/// R rows, N vectors wide: R * N accumulators in registers. kPart: one vector, of which the first
/// `part` columns exist. kStairs: row i has keys[i] steps, ascending with the row; otherwise all
/// have p.steps.
template <class Rows, int R, int N, bool kResume, bool kPart, bool kStairs = false>
HWY_INLINE void tile(const ProductOf<typename Rows::Element>& p, std::int64_t row,
                     std::int64_t column, std::int64_t part,
                     [[maybe_unused]] const std::int64_t* keys = nullptr) {
    static_assert(!kPart || N == 1);
    static_assert(!kStairs || Rows::kSteps == 1);
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
    const auto place = [&](std::int64_t j) RANKWISE_INLINE {
        return Rows::kInPanels ? j / kLanes * p.b_panel + j % kLanes : j;
    };
    const typename Rows::Element* b = p.b + place(column);
    [[maybe_unused]] const typename Rows::Element* ahead =
        Rows::kFetches ? p.ahead + column : nullptr;
    // Of rows from kFirst on.
    const auto step = [&]<int kFirst, int kTerm>() RANKWISE_INLINE {
        constexpr int kStep = Rows::kSteps - 1 - kTerm;
        V right[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) {
            right[j] =
                Rows::template load<kTerm, kPart>(b + place(j * kWidth), p.b_step, mask, part);
        }
#pragma GCC unroll 8
        for (int i = kFirst; i < R; ++i) {
            const V left = hn::Set(kTag, a[i * p.a_row + kStep * p.a_step]);
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) sum[i][j] = hn::MulAdd(left, right[j], sum[i][j]);
        }
    };
    std::int64_t s = 0;
    const auto steps = [&]<int kFirst>(std::int64_t end) RANKWISE_INLINE {
        for (; s < end; s += Rows::kSteps) {
            if constexpr (Rows::kFetches) {
                // A line a time, also where registers are narrower.
                constexpr int kLine = 64 / static_cast<int>(sizeof(*ahead));
#pragma GCC unroll 8
                for (int j = 0; j < N * kWidth; j += kLine) __builtin_prefetch(ahead + j, 0, 3);
                ahead += Rows::kAdvance * p.b_step;
            }
            step.template operator()<kFirst, 0>();
            if constexpr (Rows::kSteps == 2) step.template operator()<kFirst, 1>();
            a += Rows::kSteps * p.a_step;
            b += Rows::kAdvance * p.b_step;
        }
    };
    if constexpr (kStairs) {
        [&]<int... kRow>(std::integer_sequence<int, kRow...>) RANKWISE_INLINE {
            (steps.template operator()<kRow>(keys[kRow]), ...);
        }
        (std::make_integer_sequence<int, R>());
    } else {
        steps.template operator()<0>(p.steps);
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

template <class Rows, int R, int N, bool kResume, bool kStairs>
HWY_INLINE void columns_of(const ProductOf<typename Rows::Element>& p, std::int64_t row,
                           std::int64_t& column, const std::int64_t* keys) {
    for (; column + N * kWidth <= p.columns; column += N * kWidth) {
        tile<Rows, R, N, kResume, false, kStairs>(p, row, column, 0, keys);
    }
    if constexpr (N > 1) {
        columns_of<Rows, R, N / 2, kResume, kStairs>(p, row, column, keys);
    }
}

template <class Rows, int R, bool kResume, bool kStairs = false>
HWY_NOINLINE void rows_of(const ProductOf<typename Rows::Element>& p, std::int64_t row,
                          const std::int64_t* keys = nullptr) {
    std::int64_t column = 0;
    columns_of<Rows, R, widest(R), kResume, kStairs>(p, row, column, keys);
    if (column < p.columns) {
        tile<Rows, R, 1, kResume, true, kStairs>(p, row, column, p.columns - column, keys);
    }
}

}  // namespace product_detail

template <class Rows, bool kResume>
HWY_NOINLINE void multiply(const ProductOf<typename Rows::Element>& p) {
    namespace detail = product_detail;
    if (p.steps == 0 && kResume) return;
    std::int64_t row = 0;
    for (; row + kTile <= p.rows; row += kTile) detail::rows_of<Rows, kTile, kResume>(p, row);
    if (kWidth == 8 && p.rows <= 4) {
        // Few rows stream B from memory: narrow registers take more of a line at once in pairs of
        // rows.
        for (; row + 2 <= p.rows; row += 2) detail::rows_of<Rows, 2, kResume>(p, row);
    }
    switch (p.rows - row) {
        case 1:
            return detail::rows_of<Rows, 1, kResume>(p, row);
        case 2:
            return detail::rows_of<Rows, 2, kResume>(p, row);
        case 3:
            return detail::rows_of<Rows, 3, kResume>(p, row);
        case 4:
            return detail::rows_of<Rows, 4, kResume>(p, row);
        case 5:
            return detail::rows_of<Rows, 5, kResume>(p, row);
        default:
            return;
    }
}

/// C += A B with keys[i] steps for row i of kTile or fewer, ascending with the row. A step that a
/// row has not is not done: adding +0 in its place would turn a sum of -0 into +0.
template <class Rows>
HWY_NOINLINE void multiply_stairs(const ProductOf<typename Rows::Element>& p,
                                  const std::int64_t* keys) {
    namespace detail = product_detail;
    if (keys[0] == keys[p.rows - 1]) {
        auto even = p;
        even.steps = keys[0];
        return multiply<Rows, true>(even);
    }
    switch (p.rows) {
        case 2:
            return detail::rows_of<Rows, 2, true, true>(p, 0, keys);
        case 3:
            return detail::rows_of<Rows, 3, true, true>(p, 0, keys);
        case 4:
            return detail::rows_of<Rows, 4, true, true>(p, 0, keys);
        case 5:
            return detail::rows_of<Rows, 5, true, true>(p, 0, keys);
        default:
            return detail::rows_of<Rows, kTile, true, true>(p, 0, keys);
    }
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
