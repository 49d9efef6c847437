// Matrix products by plain loops in the order that NUMERICS N1 and N2 fix: compared with == .
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "src/base/reduction.hpp"

namespace rankwise::test {

/// A node of the reduction tree: `level` levels above it, its leaves beginning at `first`. Empty if
/// it has no terms.
inline std::optional<float> reference_node(const ReductionTree& tree, std::size_t level, int first,
                                           const std::vector<std::optional<float>>& leaves) {
    if (level == tree.radices.size()) return leaves[static_cast<std::size_t>(first)];
    int each = 1;
    for (std::size_t l = level + 1; l < tree.radices.size(); ++l) each *= tree.radices[l];
    std::optional<float> node;
    for (int child = 0; child < tree.radices[level]; ++child) {
        const auto value = reference_node(tree, level + 1, first + child * each, leaves);
        if (!value) continue;
        node = node ? *node + *value : *value;
    }
    return node;
}

/// sum over the contraction of x[k] * w[k * w_step]; a straight sum goes on from `start`.
inline float reference_dot(const Contraction& contraction, const float* x, const float* w,
                           std::int64_t w_step, float start = 0.0F) {
    std::vector<std::optional<float>> leaves;
    for (const auto& ranges : contraction.leaves) {
        float sum = start;
        bool any = false;
        for (Range range : ranges) {
            for (std::int64_t k = range.begin; k < range.end; ++k) {
                sum = std::fma(x[k], w[k * w_step], sum);
                any = true;
            }
        }
        leaves.push_back(any ? std::optional(sum) : std::nullopt);
    }
    return reference_node(contraction.tree, 0, 0, leaves).value_or(start);
}

/// sum over t ascending of dy[t * dy_step] * x[t * x_step], going on from `start`.
inline float reference_outer(std::int64_t tokens, const float* dy, std::int64_t dy_step,
                             const float* x, std::int64_t x_step, float start = 0.0F) {
    float sum = start;
    for (std::int64_t t = 0; t < tokens; ++t) sum = std::fma(dy[t * dy_step], x[t * x_step], sum);
    return sum;
}

}  // namespace rankwise::test
