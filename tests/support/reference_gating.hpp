// Routing by plain loops: in float in the contract's order, and in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/gating.hpp"
#include "tests/support/op_test.hpp"

namespace rankwise::test {

/// One row's scores, choice and weights.
template <class Real>
struct RoutedRow {
    std::vector<Real> scores;
    std::vector<std::int32_t> experts;
    std::vector<Real> weights;
};

/// Ids of the `count` largest of those that are open; of equal ones the lower ids.
template <class Real>
std::vector<std::size_t> largest_of(const std::vector<Real>& values, std::size_t count,
                                    const std::vector<bool>& open) {
    std::vector<std::size_t> ids;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (open[i]) ids.push_back(i);
    }
    std::stable_sort(ids.begin(), ids.end(),
                     [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
    ids.resize(count);
    return ids;
}

template <class Real>
void choose_and_weigh(const kernels::Routing& routing, const std::vector<float>& bias,
                      RoutedRow<Real>& row) {
    const auto experts = static_cast<std::size_t>(routing.experts);
    const auto groups = static_cast<std::size_t>(routing.groups);
    const std::size_t size = experts / groups;
    std::vector<Real> values = row.scores;
    for (std::size_t e = 0; e < bias.size(); ++e) values[e] += static_cast<Real>(bias[e]);
    std::vector<Real> worth;
    for (std::size_t g = 0; g < groups; ++g) {
        std::vector<Real> own(values.begin() + static_cast<std::ptrdiff_t>(g * size),
                              values.begin() + static_cast<std::ptrdiff_t>((g + 1) * size));
        std::sort(own.begin(), own.end(), std::greater<>());
        const bool two = routing.group_score == kernels::GroupScore::two_largest && size > 1;
        worth.push_back(two ? own[0] + own[1] : own[0]);
    }
    std::vector<bool> open(experts, false);
    for (const std::size_t g : largest_of(worth, static_cast<std::size_t>(routing.kept_groups),
                                          std::vector<bool>(groups, true))) {
        for (std::size_t e = g * size; e < (g + 1) * size; ++e) open[e] = true;
    }
    auto ids = largest_of(values, static_cast<std::size_t>(routing.chosen), open);
    std::sort(ids.begin(), ids.end());
    Real sum = row.scores[ids[0]];
    for (std::size_t i = 1; i < ids.size(); ++i) sum = sum + row.scores[ids[i]];
    sum = sum + static_cast<Real>(1e-20F);
    for (const std::size_t id : ids) {
        const Real share = routing.normalise ? row.scores[id] / sum : row.scores[id];
        row.experts.push_back(static_cast<std::int32_t>(id));
        row.weights.push_back(share * static_cast<Real>(routing.scale));
    }
}

inline RoutedRow<float> reference_routing(const kernels::Routing& routing,
                                          const std::vector<float>& logits,
                                          const std::vector<float>& bias) {
    RoutedRow<float> row;
    if (routing.scoring == kernels::Scoring::sigmoid) {
        for (const float x : logits) row.scores.push_back(1.0F / (1.0F + exp32(-x)));
    } else {
        const float largest = *std::max_element(logits.begin(), logits.end());
        LaneSum<float> sum;
        for (std::size_t e = 0; e < logits.size(); ++e) {
            row.scores.push_back(exp32(logits[e] - largest));
            sum.add(static_cast<std::int64_t>(e), row.scores[e], 1.0F);
        }
        for (float& s : row.scores) s = s / sum.total();
    }
    choose_and_weigh(routing, bias, row);
    return row;
}

inline RoutedRow<double> routing_in_double(const kernels::Routing& routing,
                                           const std::vector<double>& logits,
                                           const std::vector<float>& bias) {
    RoutedRow<double> row;
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (const double x : logits) {
        const bool sigmoid = routing.scoring == kernels::Scoring::sigmoid;
        row.scores.push_back(sigmoid ? 1.0 / (1.0 + std::exp(-x)) : std::exp(x - largest));
        sum += row.scores.back();
    }
    if (routing.scoring == kernels::Scoring::softmax) {
        for (double& s : row.scores) s /= sum;
    }
    choose_and_weigh(routing, bias, row);
    return row;
}

}  // namespace rankwise::test
