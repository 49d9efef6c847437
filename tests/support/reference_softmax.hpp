// Log-probabilities over the vocabulary in plain loops: in float in the contract's order, and in
// double.
#pragma once

#include <limits>
#include <span>

#include "kernels/cpu/thread_team.hpp"
#include "kernels/softmax.hpp"
#include "src/base/maths.hpp"
#include "tests/support/op_test.hpp"

namespace rankwise::test {

struct LeafStatistics {
    float m = -std::numeric_limits<float>::infinity();
    float s = 0.0F;
    float t = 0.0F;
};

/// One leaf of logits (padding left out).
inline LeafStatistics reference_leaf(std::span<const float> logits, float inverse_temperature) {
    const kernels::cpu::FlushDenormals flush;
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    LeafStatistics leaf;
    for (float logit : logits) leaf.m = std::max(leaf.m, logit * inverse_temperature);
    LaneSum<float> s;
    LaneSum<float> t;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        const float difference =
            logits[i] * inverse_temperature - (leaf.m == -kInfinity ? 0.0F : leaf.m);
        const float e = exp32(difference);
        s.add(static_cast<std::int64_t>(i), e, 1.0F);
        t.add(static_cast<std::int64_t>(i), e, difference == -kInfinity ? 0.0F : difference);
    }
    leaf.s = s.total();
    leaf.t = t.total();
    return leaf;
}

struct RowStatistics {
    float maximum;
    float sum;
    float logprob;
    float entropy;
};

/// The leaves of one row, by the tree.
inline RowStatistics reference_merge(const ReductionTree& tree,
                                     std::span<const LeafStatistics> leaves, float target) {
    const kernels::cpu::FlushDenormals flush;
    float m = -std::numeric_limits<float>::infinity();
    for (const LeafStatistics& leaf : leaves) {
        if (leaf.s != 0.0F) m = std::max(m, leaf.m);
    }
    struct Node {
        bool there;
        float s;
        float t;
    };
    std::vector<Node> nodes;
    for (const LeafStatistics& leaf : leaves) {
        const float c = exp32(leaf.m - m);
        nodes.push_back({leaf.s != 0.0F, c * leaf.s, c * std::fma(leaf.m - m, leaf.s, leaf.t)});
    }
    // Level by level from the leaves up.
    for (std::size_t level = tree.radices.size(); level-- > 0;) {
        std::vector<Node> above;
        const auto radix = static_cast<std::size_t>(tree.radices[level]);
        for (std::size_t first = 0; first < nodes.size(); first += radix) {
            Node sum{false, 0.0F, 0.0F};
            for (std::size_t child = first; child < first + radix; ++child) {
                if (!nodes[child].there) continue;
                sum = sum.there ? Node{true, sum.s + nodes[child].s, sum.t + nodes[child].t}
                                : nodes[child];
            }
            above.push_back(sum);
        }
        nodes = above;
    }
    const Node total = nodes[0];
    const auto log_sum = static_cast<float>(maths::log(static_cast<double>(total.s)));
    return {m, total.s, (target - m) - log_sum, log_sum - total.t / total.s};
}

/// log-softmax and entropy of logits * inverse_temperature in double; -infinity has probability 0.
struct DoubleSoftmax {
    DoubleSoftmax(std::span<const float> logits, double inverse_temperature) {
        double m = -std::numeric_limits<double>::infinity();
        for (float logit : logits)
            m = std::max(m, static_cast<double>(logit) * inverse_temperature);
        double sum = 0.0;
        for (float logit : logits) {
            sum += std::exp(static_cast<double>(logit) * inverse_temperature - m);
        }
        for (float logit : logits) {
            logprobs.push_back(static_cast<double>(logit) * inverse_temperature - m -
                               std::log(sum));
            const double p = std::exp(logprobs.back());
            if (p > 0.0) entropy -= p * logprobs.back();
        }
    }
    std::vector<double> logprobs;
    double entropy = 0.0;
};

}  // namespace rankwise::test
