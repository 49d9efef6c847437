// What forward and backward of attention do to rows of scores.
#pragma once

#include "kernels/cpu/attention_kernels.hpp"
#include "kernels/cpu/isa/attention_product.hpp"
#include "kernels/cpu/isa/lanes.hpp"
#include "kernels/cpu/isa/maths.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {

constexpr std::int64_t kBlock = 64;
constexpr float kMinusInfinity = -__builtin_inff();

/// How rows of a block lie that were packed from elements of this type, for the dot product of two
/// of them.
template <class Element>
struct DotRows {
    using Packed = FloatRows;
};
template <>
struct DotRows<std::uint16_t> {
    using Packed = FloatPairs;
};

constexpr std::int64_t round_up_16(std::int64_t n) {
    return (n + 15) / 16 * 16;
}

/// s = s * scale for the first `keys` of a row's scores, -infinity behind them up to the next
/// multiple of 16; returns the largest.
HWY_INLINE float scale_and_top(float* s, std::int64_t keys, float scale) {
    const F16 factor = set(scale);
    F16 top = set(kMinusInfinity);
    for (std::int64_t j = 0; j < keys; j += kLanes) {
        const F16 scaled = keep_first_or(load(s + j) * factor, keys - j, kMinusInfinity);
        store(scaled, s + j);
        top = max(top, scaled);
    }
    return max_lane(top);
}

HWY_INLINE float lane_0(F16 a) {
    return hn::GetLane(a.v[0]);
}

/// to[0 .. count) = from[0 .. count), widened.
template <class Element>
HWY_INLINE void copy(const Element* from, std::int64_t count, float* to) {
    each_sixteen(count, [&](std::int64_t i, auto lanes)
                            RANKWISE_INLINE { lanes.store(lanes.load(from + i), to + i); });
}

/// Brings a head's part of a row near, which lies by itself: what is taken some rows later.
template <class Element>
HWY_INLINE void fetch_later(const Element* row, std::int64_t count) {
    constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(Element));
    for (std::int64_t d = 0; d < count; d += kLine) __builtin_prefetch(row + d, 0, 2);
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
