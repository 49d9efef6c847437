// Sixteen virtual lanes of float, of 32-bit integers and of double, whatever the register width:
// NUMERICS N9. Included only by sources of this folder, which are compiled once for each
// instruction set into a namespace of its own, RANKWISE_ISA. They use no standard-library templates
// and define nothing outside that namespace: a function compiled for AVX-512 must never be the copy
// that the linker keeps for everybody. Highway's functions are static and forced inline.
#pragma once

#define HWY_COMPILE_ONLY_STATIC
#include <hwy/highway.h>

#include <cstdint>

#if HWY_TARGET != HWY_AVX2 && HWY_TARGET != HWY_AVX3
#error "compile for AVX2 with FMA or for AVX-512: other targets of Highway may not fuse MulAdd"
#endif

namespace rankwise::kernels::cpu::RANKWISE_ISA {

// For lambdas that take or keep lanes: left to itself GCC may call one, and its lanes then go
// through memory.
#ifdef __OPTIMIZE__
#define RANKWISE_INLINE __attribute__((always_inline))
#else
#define RANKWISE_INLINE
#endif

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kLanes = 16;

using FloatTag = hn::CappedTag<float, kLanes>;
using WordTag = hn::CappedTag<std::uint32_t, kLanes>;
using DoubleTag = hn::CappedTag<double, 8>;
using FloatRegister = hn::Vec<FloatTag>;
using WordRegister = hn::Vec<WordTag>;
using DoubleRegister = hn::Vec<DoubleTag>;

constexpr int kWidth = static_cast<int>(sizeof(FloatRegister) / sizeof(float));
constexpr int kRegisters = kLanes / kWidth;
constexpr int kDoubleRegisters = 2 * kRegisters;
constexpr int kDoubleWidth = kWidth / 2;

/// Lane i of 16 is element i % kWidth of register i / kWidth. All operations below are lane-wise
/// and rounded once, to nearest even; reductions say their order.
struct F16 {
    FloatRegister v[kRegisters];
};
/// Lane-wise truth values.
struct M16 {
    hn::Mask<FloatTag> v[kRegisters];
};
/// 32-bit unsigned integers.
struct U16 {
    WordRegister v[kRegisters];
};
/// Doubles.
struct D16 {
    DoubleRegister v[kDoubleRegisters];
};

#define RANKWISE_EACH_REGISTER _Pragma("GCC unroll 2") for (int i = 0; i < kRegisters; ++i)
#define RANKWISE_EACH_DOUBLE_REGISTER \
    _Pragma("GCC unroll 4") for (int i = 0; i < kDoubleRegisters; ++i)

// Making, loading, storing.

HWY_INLINE F16 set(float x) {
    F16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::Set(FloatTag(), x);
    return r;
}
HWY_INLINE F16 zero() {
    return set(0.0F);
}
/// No alignment is asked for.
HWY_INLINE F16 load(const float* from) {
    F16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::LoadU(FloatTag(), from + i * kWidth);
    return r;
}
HWY_INLINE void store(F16 a, float* to) {
    RANKWISE_EACH_REGISTER hn::StoreU(a.v[i], FloatTag(), to + i * kWidth);
}
/// True in the first `count` lanes; count <= 0: none, >= 16: all.
HWY_INLINE M16 first_lanes(std::int64_t count) {
    M16 r;
    RANKWISE_EACH_REGISTER {
        std::int64_t here = count - i * kWidth;
        here = here < 0 ? 0 : here > kWidth ? kWidth : here;
        r.v[i] = hn::FirstN(FloatTag(), static_cast<size_t>(here));
    }
    return r;
}
/// The first `count` lanes from memory, +0 in the others; memory beyond them is not touched.
HWY_INLINE F16 load_first(const float* from, std::int64_t count) {
    const M16 mask = first_lanes(count);
    F16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::MaskedLoad(mask.v[i], FloatTag(), from + i * kWidth);
    return r;
}
/// Only the first `count` lanes.
HWY_INLINE void store_first(F16 a, float* to, std::int64_t count) {
    const M16 mask = first_lanes(count);
    RANKWISE_EACH_REGISTER hn::BlendedStore(a.v[i], mask.v[i], FloatTag(), to + i * kWidth);
}

// Arithmetic.

HWY_INLINE F16 operator+(F16 a, F16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Add(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE F16 operator-(F16 a, F16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Sub(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE F16 operator*(F16 a, F16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Mul(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE F16 operator/(F16 a, F16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Div(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE F16 operator-(F16 a) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Neg(a.v[i]);
    return a;
}
/// a * b + c, rounded once.
HWY_INLINE F16 fma(F16 a, F16 b, F16 c) {
    RANKWISE_EACH_REGISTER c.v[i] = hn::MulAdd(a.v[i], b.v[i], c.v[i]);
    return c;
}
/// c - a * b, rounded once.
HWY_INLINE F16 fnma(F16 a, F16 b, F16 c) {
    RANKWISE_EACH_REGISTER c.v[i] = hn::NegMulAdd(a.v[i], b.v[i], c.v[i]);
    return c;
}
/// a * b - c, rounded once.
HWY_INLINE F16 fms(F16 a, F16 b, F16 c) {
    RANKWISE_EACH_REGISTER c.v[i] = hn::MulSub(a.v[i], b.v[i], c.v[i]);
    return c;
}
HWY_INLINE F16 sqrt(F16 a) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Sqrt(a.v[i]);
    return a;
}
/// a > b ? a : b, so b where one is NaN.
HWY_INLINE F16 max(F16 a, F16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Max(a.v[i], b.v[i]);
    return a;
}

// Comparing and choosing; comparisons with NaN are false.

HWY_INLINE M16 less(F16 a, F16 b) {
    M16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::Lt(a.v[i], b.v[i]);
    return r;
}
HWY_INLINE M16 less_equal(F16 a, F16 b) {
    M16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::Le(a.v[i], b.v[i]);
    return r;
}
HWY_INLINE M16 equal(F16 a, F16 b) {
    M16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::Eq(a.v[i], b.v[i]);
    return r;
}
/// yes where the mask is true, else no.
HWY_INLINE F16 select(M16 mask, F16 yes, F16 no) {
    RANKWISE_EACH_REGISTER yes.v[i] = hn::IfThenElse(mask.v[i], yes.v[i], no.v[i]);
    return yes;
}
/// a where the mask is true, else +0.
HWY_INLINE F16 keep(M16 mask, F16 a) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::IfThenElseZero(mask.v[i], a.v[i]);
    return a;
}

/// The first `count` lanes of a; the others: +0, or `other`.
HWY_INLINE F16 keep_first(F16 a, std::int64_t count) {
    return keep(first_lanes(count), a);
}
HWY_INLINE F16 keep_first_or(F16 a, std::int64_t count, float other) {
    return select(first_lanes(count), a, set(other));
}

HWY_INLINE float first_lane(F16 a) {
    return hn::GetLane(a.v[0]);
}

// Reductions of the lanes.

/// The fixed tree: l[i] + l[i + 8], of those i + (i + 4), then i + (i + 2), then the two that are
/// left.
HWY_INLINE float sum(F16 a) {
#if HWY_TARGET == HWY_AVX3
    const hn::Half<FloatTag> half;
    const auto eight = hn::Add(hn::LowerHalf(half, a.v[0]), hn::UpperHalf(half, a.v[0]));
#else
    const FloatTag half;
    const auto eight = hn::Add(a.v[0], a.v[1]);
#endif
    const hn::Half<decltype(half)> quarter;
    const auto four = hn::Add(hn::LowerHalf(quarter, eight), hn::UpperHalf(quarter, eight));
    const auto two = hn::Add(four, hn::Shuffle1032(four));
    return hn::GetLane(hn::Add(two, hn::Shuffle2301(two)));
}
/// The largest lane; lanes that are NaN may be overlooked.
HWY_INLINE float max_lane(F16 a) {
    auto m = a.v[0];
    for (int i = 1; i < kRegisters; ++i) m = hn::Max(m, a.v[i]);
    return hn::GetLane(hn::MaxOfLanes(FloatTag(), m));
}

// Integers.

HWY_INLINE U16 set(std::uint32_t x) {
    U16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::Set(WordTag(), x);
    return r;
}
HWY_INLINE U16 load(const std::uint32_t* from) {
    U16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::LoadU(WordTag(), from + i * kWidth);
    return r;
}
HWY_INLINE void store(U16 a, std::uint32_t* to) {
    RANKWISE_EACH_REGISTER hn::StoreU(a.v[i], WordTag(), to + i * kWidth);
}
HWY_INLINE U16 operator+(U16 a, U16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Add(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE U16 operator-(U16 a, U16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Sub(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE U16 operator^(U16 a, U16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::Xor(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE U16 operator&(U16 a, U16 b) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::And(a.v[i], b.v[i]);
    return a;
}
template <int kBits>
HWY_INLINE U16 shift_left(U16 a) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::ShiftLeft<kBits>(a.v[i]);
    return a;
}
template <int kBits>
HWY_INLINE U16 shift_right(U16 a) {
    RANKWISE_EACH_REGISTER a.v[i] = hn::ShiftRight<kBits>(a.v[i]);
    return a;
}
HWY_INLINE U16 select(M16 mask, U16 yes, U16 no) {
    RANKWISE_EACH_REGISTER yes.v[i] =
        hn::IfThenElse(hn::RebindMask(WordTag(), mask.v[i]), yes.v[i], no.v[i]);
    return yes;
}
/// The high and the low words of the 64-bit products.
HWY_INLINE void multiply_wide(U16 a, U16 b, U16& high, U16& low) {
    const hn::Repartition<std::uint64_t, WordTag> wide;
    RANKWISE_EACH_REGISTER {
        const auto a_odd = hn::BitCast(WordTag(), hn::ShiftRight<32>(hn::BitCast(wide, a.v[i])));
        const auto b_odd = hn::BitCast(WordTag(), hn::ShiftRight<32>(hn::BitCast(wide, b.v[i])));
        const auto even = hn::BitCast(WordTag(), hn::MulEven(a.v[i], b.v[i]));
        const auto odd = hn::BitCast(WordTag(), hn::MulEven(a_odd, b_odd));
        const auto even_high = hn::BitCast(WordTag(), hn::ShiftRight<32>(hn::BitCast(wide, even)));
        const auto odd_low = hn::BitCast(WordTag(), hn::ShiftLeft<32>(hn::BitCast(wide, odd)));
        high.v[i] = hn::OddEven(odd, even_high);
        low.v[i] = hn::OddEven(odd_low, even);
    }
}

/// Lanes 4g, 4g + 1, 4g + 2, 4g + 3 of result k are lane 4g + k of a, b, c, d: in each group of
/// four lanes, a 4 x 4 transpose.
HWY_INLINE void transpose_groups(U16& a, U16& b, U16& c, U16& d) {
    const hn::Repartition<std::uint64_t, WordTag> wide;
    RANKWISE_EACH_REGISTER {
        const auto ab_low = hn::BitCast(wide, hn::InterleaveLower(WordTag(), a.v[i], b.v[i]));
        const auto ab_high = hn::BitCast(wide, hn::InterleaveUpper(WordTag(), a.v[i], b.v[i]));
        const auto cd_low = hn::BitCast(wide, hn::InterleaveLower(WordTag(), c.v[i], d.v[i]));
        const auto cd_high = hn::BitCast(wide, hn::InterleaveUpper(WordTag(), c.v[i], d.v[i]));
        a.v[i] = hn::BitCast(WordTag(), hn::InterleaveLower(wide, ab_low, cd_low));
        b.v[i] = hn::BitCast(WordTag(), hn::InterleaveUpper(wide, ab_low, cd_low));
        c.v[i] = hn::BitCast(WordTag(), hn::InterleaveLower(wide, ab_high, cd_high));
        d.v[i] = hn::BitCast(WordTag(), hn::InterleaveUpper(wide, ab_high, cd_high));
    }
}

HWY_INLINE U16 bits_of(F16 a) {
    U16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::BitCast(WordTag(), a.v[i]);
    return r;
}
HWY_INLINE F16 from_bits(U16 a) {
    F16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::BitCast(FloatTag(), a.v[i]);
    return r;
}
/// The float of the same value, of integers in [-2^31, 2^31) (two's complement).
HWY_INLINE F16 float_of_signed(U16 a) {
    const hn::RebindToSigned<WordTag> integer;
    F16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::ConvertTo(FloatTag(), hn::BitCast(integer, a.v[i]));
    return r;
}

// Doubles.

HWY_INLINE D16 zero_double() {
    D16 r;
    RANKWISE_EACH_DOUBLE_REGISTER r.v[i] = hn::Zero(DoubleTag());
    return r;
}
/// The same values, exactly.
HWY_INLINE D16 widen(F16 a) {
    const hn::Half<FloatTag> half;
    D16 r;
    RANKWISE_EACH_REGISTER {
        r.v[2 * i] = hn::PromoteTo(DoubleTag(), hn::LowerHalf(half, a.v[i]));
        r.v[2 * i + 1] = hn::PromoteTo(DoubleTag(), hn::UpperHalf(half, a.v[i]));
    }
    return r;
}
HWY_INLINE D16 set(double x) {
    D16 r;
    RANKWISE_EACH_DOUBLE_REGISTER r.v[i] = hn::Set(DoubleTag(), x);
    return r;
}
HWY_INLINE D16 load(const double* from) {
    D16 r;
    RANKWISE_EACH_DOUBLE_REGISTER r.v[i] = hn::LoadU(DoubleTag(), from + i * kDoubleWidth);
    return r;
}
HWY_INLINE void store(D16 a, double* to) {
    RANKWISE_EACH_DOUBLE_REGISTER hn::StoreU(a.v[i], DoubleTag(), to + i * kDoubleWidth);
}
HWY_INLINE D16 operator+(D16 a, D16 b) {
    RANKWISE_EACH_DOUBLE_REGISTER a.v[i] = hn::Add(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE D16 operator-(D16 a, D16 b) {
    RANKWISE_EACH_DOUBLE_REGISTER a.v[i] = hn::Sub(a.v[i], b.v[i]);
    return a;
}
HWY_INLINE D16 operator*(D16 a, D16 b) {
    RANKWISE_EACH_DOUBLE_REGISTER a.v[i] = hn::Mul(a.v[i], b.v[i]);
    return a;
}
/// c - a * b, rounded once.
HWY_INLINE D16 fnma(D16 a, D16 b, D16 c) {
    RANKWISE_EACH_DOUBLE_REGISTER c.v[i] = hn::NegMulAdd(a.v[i], b.v[i], c.v[i]);
    return c;
}
/// value where a >= limit, else +0 (so where a is NaN).
HWY_INLINE D16 keep_from(D16 limit, D16 a, D16 value) {
    RANKWISE_EACH_DOUBLE_REGISTER value.v[i] =
        hn::IfThenElseZero(hn::Ge(a.v[i], limit.v[i]), value.v[i]);
    return value;
}
/// value * 2^n, n read from the low bits of 2^52 * 1.5 + n; all of the values and of the results
/// are normal.
HWY_INLINE D16 scale_by_shifted(D16 value, D16 shifted) {
    const hn::RebindToUnsigned<DoubleTag> bits;
    RANKWISE_EACH_DOUBLE_REGISTER value.v[i] = hn::BitCast(
        DoubleTag(),
        hn::Add(hn::BitCast(bits, value.v[i]), hn::ShiftLeft<52>(hn::BitCast(bits, shifted.v[i]))));
    return value;
}
/// a * b + c, rounded once.
HWY_INLINE D16 fma(D16 a, D16 b, D16 c) {
    RANKWISE_EACH_DOUBLE_REGISTER c.v[i] = hn::MulAdd(a.v[i], b.v[i], c.v[i]);
    return c;
}
/// The tree of the sum of floats.
HWY_INLINE double sum(D16 a) {
    for (int step = kDoubleRegisters / 2; step > 0; step /= 2) {
        for (int i = 0; i < step; ++i) a.v[i] = hn::Add(a.v[i], a.v[i + step]);
    }
#if HWY_TARGET == HWY_AVX3
    const hn::Half<DoubleTag> half;
    const auto four = hn::Add(hn::LowerHalf(half, a.v[0]), hn::UpperHalf(half, a.v[0]));
#else
    const DoubleTag half;
    const auto four = a.v[0];
#endif
    const hn::Half<decltype(half)> quarter;
    const auto two = hn::Add(hn::LowerHalf(quarter, four), hn::UpperHalf(quarter, four));
    return hn::GetLane(hn::Add(two, hn::Shuffle01(two)));
}

// bf16 elements in memory, widened when they are loaded and rounded to nearest even when they are
// stored (a NaN stays a quiet NaN).

HWY_INLINE F16 load(const std::uint16_t* from) {
    const hn::Rebind<std::uint16_t, WordTag> elements;
    F16 r;
    RANKWISE_EACH_REGISTER r.v[i] = hn::BitCast(
        FloatTag(),
        hn::ShiftLeft<16>(hn::PromoteTo(WordTag(), hn::LoadU(elements, from + i * kWidth))));
    return r;
}
HWY_INLINE void store(F16 a, std::uint16_t* to) {
    const hn::Rebind<std::uint16_t, WordTag> elements;
    const hn::RebindToSigned<WordTag> integer;
    const U16 bits = bits_of(a);
    const U16 upper = shift_right<16>(bits);
    const U16 nearest = shift_right<16>(bits + set(0x7FFFU) + (upper & set(1U)));
    RANKWISE_EACH_REGISTER {
        const auto number = hn::RebindMask(WordTag(), hn::Eq(a.v[i], a.v[i]));
        const auto quiet = hn::Or(upper.v[i], hn::Set(WordTag(), 0x40U));
        const auto word = hn::IfThenElse(number, nearest.v[i], quiet);
        hn::StoreU(hn::DemoteTo(elements, hn::BitCast(integer, word)), elements, to + i * kWidth);
    }
}
HWY_INLINE F16 load_first(const std::uint16_t* from, std::int64_t count) {
    std::uint16_t elements[kLanes] = {};
    for (std::int64_t i = 0; i < count && i < kLanes; ++i) elements[i] = from[i];
    return load(elements);
}
HWY_INLINE void store_first(F16 a, std::uint16_t* to, std::int64_t count) {
    std::uint16_t elements[kLanes];
    store(a, elements);
    for (std::int64_t i = 0; i < count && i < kLanes; ++i) to[i] = elements[i];
}

/// Brings the line of an address near, which need not be anything's. For rows that come from
/// memory: the processor's own fetching ends with every page.
template <class Element>
HWY_INLINE void fetch(const Element* address) {
    __builtin_prefetch(address);
}

// Loops over arrays. Elements are floats or bf16.

struct WholeLanes {
    template <class Element>
    HWY_INLINE F16 load(const Element* from) const {
        return RANKWISE_ISA::load(from);
    }
    template <class Element>
    HWY_INLINE void store(F16 a, Element* to) const {
        RANKWISE_ISA::store(a, to);
    }
};
struct FirstLanes {
    std::int64_t count;
    template <class Element>
    HWY_INLINE F16 load(const Element* from) const {
        return load_first(from, count);
    }
    template <class Element>
    HWY_INLINE void store(F16 a, Element* to) const {
        store_first(a, to, count);
    }
};

/// body(i, lanes) for i = 0, 16, 32, … below n: `lanes` loads and stores the elements from i on
/// that exist (the others load as +0).
template <class Body>
HWY_INLINE void each_sixteen(std::int64_t n, const Body& body) {
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) body(i, WholeLanes{});
    if (i < n) body(i, FirstLanes{n - i});
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
