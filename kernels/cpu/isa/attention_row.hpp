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

/// C += A B with keys[i] steps for row i, ascending with the row. A step that a row has not is not
/// done: adding +0 in its place would turn a sum of -0 into +0.
template <class Rows>
HWY_INLINE void multiply_stairs(ProductOf<typename Rows::Element> p, const std::int64_t* keys) {
    std::int64_t done = 0;
    const std::int64_t rows = p.rows;
    const auto whole = p;
    for (std::int64_t row = 0; row < rows; ++row) {
        if (keys[row] == done) continue;
        p.a = whole.a + row * whole.a_row + done * whole.a_step;
        p.b = whole.b + done * whole.b_step;
        if constexpr (Rows::kFetches) p.ahead = whole.ahead + done * whole.b_step;
        p.c = whole.c + row * whole.c_row;
        p.rows = rows - row;
        p.steps = keys[row] - done;
        multiply<Rows, true>(p);
        done = keys[row];
    }
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

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
