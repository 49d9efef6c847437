// Products of bf16 elements by plain loops in the order that NUMERICS N1 fixes: compared with == .
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "src/base/dtype.hpp"
#include "tests/support/reference_matmul.hpp"

namespace rankwise::test {

using Bf16 = std::uint16_t;

inline std::vector<Bf16> to_bf16(const std::vector<float>& values) {
    std::vector<Bf16> bits;
    for (float value : values) bits.push_back(bf16_from_float(value));
    return bits;
}
inline std::vector<float> widened(const std::vector<Bf16>& bits) {
    std::vector<float> values;
    for (Bf16 each : bits) values.push_back(float_from_bf16(each));
    return values;
}

/// sum + the products of a pair, the second first.
inline float reference_pair(float a0, float b0, float a1, float b1, float sum) {
    return std::fma(a0, b0, std::fma(a1, b1, sum));
}

/// `sum` + the products of n elements (steps apart), in pairs from the first on; an element left
/// over has a zero beside it.
inline float reference_pairs(std::int64_t n, const Bf16* a, std::int64_t a_step, const Bf16* b,
                             std::int64_t b_step, float sum) {
    const auto element = [n](const Bf16* from, std::int64_t i, std::int64_t step) {
        return i < n ? float_from_bf16(from[i * step]) : 0.0F;
    };
    for (std::int64_t i = 0; i < n; i += 2) {
        sum = reference_pair(element(a, i, a_step), element(b, i, b_step),
                             element(a, i + 1, a_step), element(b, i + 1, b_step), sum);
    }
    return sum;
}

/// sum over the contraction of x[k] * w[k * w_step], pairs beginning anew in each range; a straight
/// sum goes on from `start`.
inline float reference_dot(const Contraction& contraction, const Bf16* x, const Bf16* w,
                           std::int64_t w_step, float start = 0.0F) {
    std::vector<std::optional<float>> leaves;
    for (const auto& ranges : contraction.leaves) {
        float sum = start;
        bool any = false;
        for (Range range : ranges) {
            if (range.empty()) continue;
            sum = reference_pairs(range.size(), x + range.begin, 1, w + range.begin * w_step,
                                  w_step, sum);
            any = true;
        }
        leaves.push_back(any ? std::optional(sum) : std::nullopt);
    }
    return reference_node(contraction.tree, 0, 0, leaves).value_or(start);
}

/// sum over t ascending of dy[t * dy_step] * x[t * x_step] in pairs inside each segment, going on
/// from `start`.
inline float reference_outer(const std::vector<std::int64_t>& borders, const Bf16* dy,
                             std::int64_t dy_step, const Bf16* x, std::int64_t x_step,
                             float start = 0.0F) {
    float sum = start;
    for (std::size_t s = 0; s + 1 < borders.size(); ++s) {
        sum = reference_pairs(borders[s + 1] - borders[s], dy + borders[s] * dy_step, dy_step,
                              x + borders[s] * x_step, x_step, sum);
    }
    return sum;
}

}  // namespace rankwise::test
