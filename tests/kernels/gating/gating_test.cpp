// Routing and combining, on every device.
#include "kernels/gating.hpp"

#include <gtest/gtest.h>

#include "tests/support/devices.hpp"
#include "tests/support/reference_gating.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

using kernels::GroupScore;
using kernels::Routing;
using kernels::Scoring;

class GatingTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, GatingTest, testing::ValuesIn(device_cases()), device_name);

std::vector<Routing> routings() {
    return {{.scoring = Scoring::sigmoid,
             .experts = 16,
             .chosen = 4,
             .groups = 4,
             .kept_groups = 2,
             .normalise = true,
             .scale = 2.5F},
            {.scoring = Scoring::softmax, .experts = 19, .chosen = 3},
            {.scoring = Scoring::softmax,
             .experts = 40,
             .chosen = 6,
             .groups = 8,
             .kept_groups = 3,
             .group_score = GroupScore::largest,
             .scale = 16.0F},
            {.scoring = Scoring::sigmoid, .experts = 5, .chosen = 5, .normalise = true},
            {.scoring = Scoring::sigmoid,
             .experts = 256,
             .chosen = 8,
             .groups = 8,
             .kept_groups = 4,
             .normalise = true,
             .scale = 2.5F},
            {.scoring = Scoring::softmax, .experts = 1, .chosen = 1}};
}

struct Routed {
    std::vector<float> scores, weights;
    std::vector<std::int32_t> experts;
};

/// Rows of `stride` floats; what lies between them must not be touched.
Routed route(const DeviceUnderTest& device, const Routing& routing, std::int64_t rows,
             const std::vector<float>& logits, const std::vector<float>& bias) {
    const auto in = device.put(logits);
    const auto of_choice = device.put(bias);
    const auto scores = device.make<float>(rows * routing.experts);
    const auto weights = device.make<float>(rows * routing.chosen);
    Routed out;
    out.experts.resize(static_cast<std::size_t>(rows * routing.chosen));
    device->gating({.logits = matrix(in.span(), rows, routing.experts, routing.experts),
                    .bias = of_choice.span(),
                    .routing = routing,
                    .scores = matrix(scores.span(), rows, routing.experts, routing.experts),
                    .weights = matrix(weights.span(), rows, routing.chosen, routing.chosen),
                    .experts = out.experts},
                   device.stream());
    out.scores = device.get(scores);
    out.weights = device.get(weights);
    return out;
}

std::vector<float> row_of(const std::vector<float>& all, std::int64_t row, std::int64_t cols) {
    return {all.begin() + row * cols, all.begin() + (row + 1) * cols};
}

TEST_P(GatingTest, ScoresChoiceAndWeightsAreTheContractsSequence) {
    for (const Routing& routing : routings()) {
        const std::int64_t rows = 60;
        const auto logits = random_floats(rows * routing.experts, 1, 4.0F);
        for (const bool biased : {false, true}) {
            const auto bias =
                biased ? random_floats(routing.experts, 2, 0.4F) : std::vector<float>{};
            const Routed got = route(device, routing, rows, logits, bias);
            for (std::int64_t t = 0; t < rows; ++t) {
                const auto expected =
                    reference_routing(routing, row_of(logits, t, routing.experts), bias);
                EXPECT_EQ(row_of(got.scores, t, routing.experts), expected.scores);
                EXPECT_EQ(row_of(got.weights, t, routing.chosen), expected.weights);
                const std::vector<std::int32_t> chosen(
                    got.experts.begin() + t * routing.chosen,
                    got.experts.begin() + (t + 1) * routing.chosen);
                EXPECT_EQ(chosen, expected.experts);
            }
        }
    }
}

TEST_P(GatingTest, OfEqualScoresTheLowerIdsAreChosenAndOfEqualGroupsTheLower) {
    const Routing routing{.experts = 12, .chosen = 3, .groups = 3, .kept_groups = 2};
    const Routed all_equal = route(device, routing, 1, std::vector<float>(12, 0.5F), {});
    EXPECT_EQ(all_equal.experts, (std::vector<std::int32_t>{0, 1, 2}));
    // Groups 1 and 2 are equal and better than 0; group 1's first are no better than group 2's.
    std::vector<float> logits(12, -1.0F);
    for (const std::size_t e : {5U, 7U, 8U, 11U}) logits[e] = 1.0F;
    EXPECT_EQ(route(device, routing, 1, logits, {}).experts, (std::vector<std::int32_t>{5, 7, 8}));
}

TEST_P(GatingTest, TheBiasChoosesButDoesNotWeigh) {
    const Routing routing{.experts = 4, .chosen = 1, .scale = 2.0F};
    const std::vector<float> logits{3.0F, 0.0F, 0.0F, 0.0F};
    const Routed got = route(device, routing, 1, logits, {0.0F, 0.0F, 9.0F, 0.0F});
    EXPECT_EQ(got.experts, (std::vector<std::int32_t>{2}));
    EXPECT_EQ(got.weights, (std::vector<float>{1.0F}));  // 2 sigmoid(0)
}

TEST_P(GatingTest, ARowOfNaNsStillChoosesExpertsThatExist) {
    const Routing routing{.experts = 8, .chosen = 3, .groups = 4, .kept_groups = 2};
    const Routed got = route(device, routing, 1, std::vector<float>(8, NAN), {});
    EXPECT_EQ(got.experts, (std::vector<std::int32_t>{0, 1, 2}));
    EXPECT_TRUE(std::isnan(got.weights[0]));
}

TEST_P(GatingTest, GradientsAreThoseOfDifferencesInDouble) {
    constexpr double kStep = 1e-5;
    for (const Routing& routing : routings()) {
        const std::int64_t rows = 5;
        const auto logits = random_floats(rows * routing.experts, 7, 2.0F);
        const auto dweights = random_floats(rows * routing.chosen, 8);
        const Routed forward = route(device, routing, rows, logits, {});
        const auto scores = device.put(forward.scores);
        const auto dw = device.put(dweights);
        const auto dlogits = device.make<float>(rows * routing.experts);
        device->gating_backward(
            {.scores = matrix(scores.span(), rows, routing.experts, routing.experts),
             .dweights = matrix(dw.span(), rows, routing.chosen, routing.chosen),
             .experts = forward.experts,
             .routing = routing,
             .dlogits = matrix(dlogits.span(), rows, routing.experts, routing.experts)},
            device.stream());
        const auto got = device.get(dlogits);
        for (std::int64_t t = 0; t < rows; ++t) {
            const auto row = row_of(logits, t, routing.experts);
            std::vector<double> x(row.begin(), row.end());
            const auto loss = [&] {
                const auto routed = routing_in_double(routing, x, {});
                double sum = 0.0;
                for (std::size_t i = 0; i < routed.weights.size(); ++i) {
                    sum += routed.weights[i] *
                           static_cast<double>(
                               dweights[static_cast<std::size_t>(t * routing.chosen) + i]);
                }
                return sum;
            };
            for (std::size_t e = 0; e < x.size(); ++e) {
                const double was = x[e];
                x[e] = was + kStep;
                const double above = loss();
                x[e] = was - kStep;
                const double below = loss();
                x[e] = was;
                EXPECT_NEAR(got[static_cast<std::size_t>(t * routing.experts) + e],
                            (above - below) / (2 * kStep),
                            2e-6 * static_cast<double>(routing.scale))
                    << e;
            }
        }
    }
}

struct CombineCase {
    std::int64_t tokens, each, cols;
};
const std::vector<CombineCase> kCombineCases = {{1, 1, 1}, {7, 3, 37}, {200, 4, 64}, {0, 2, 8}};

/// Each of tokens * each rows once, in an order of no pattern.
std::vector<std::int64_t> shuffled(std::int64_t count) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
    std::iota(rows.begin(), rows.end(), 0);
    for (std::size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[(i * 7 + 3) % i]);
    return rows;
}

TEST_P(GatingTest, CombiningAddsWeightedRowsInOrder) {
    for (const CombineCase& c : kCombineCases) {
        const auto rows = shuffled(c.tokens * c.each);
        const auto values = random_floats(c.tokens * c.each * (c.cols + 2), 1);
        const auto factors = random_floats(c.tokens * c.each, 2, 2.0F);
        const auto before = random_floats(c.tokens * (c.cols + 1), 3);
        const auto from = device.put(values);
        const auto weights = device.put(factors);
        for (const bool weighted : {false, true}) {
            for (const auto output : {kernels::Output::store, kernels::Output::resume}) {
                const auto to = device.put(before);
                auto expected = before;
                for (std::int64_t t = 0; t < c.tokens; ++t) {
                    for (std::int64_t i = 0; i < c.cols; ++i) {
                        float& sum = expected[static_cast<std::size_t>(t * (c.cols + 1) + i)];
                        if (output == kernels::Output::store) sum = 0.0F;
                        for (std::int64_t k = 0; k < c.each; ++k) {
                            const auto at = static_cast<std::size_t>(t * c.each + k);
                            const float value =
                                values[static_cast<std::size_t>(rows[at] * (c.cols + 2) + i)];
                            sum = weighted ? std::fma(factors[at], value, sum) : sum + value;
                        }
                    }
                }
                device->combine_rows(
                    {.from = matrix(from.span(), c.tokens * c.each, c.cols, c.cols + 2),
                     .weights = weighted ? kernels::ConstMatrix(
                                               matrix(weights.span(), c.tokens, c.each, c.each))
                                         : kernels::ConstMatrix(),
                     .rows = rows,
                     .to = matrix(to.span(), c.tokens, c.cols, c.cols + 1),
                     .output = output},
                    device.stream());
                EXPECT_EQ(device.get(to), expected);
            }
        }
    }
}

TEST_P(GatingTest, CombiningBackwardScalesRowsAndSumsTheirWeightsInLanes) {
    for (const CombineCase& c : kCombineCases) {
        const auto rows = shuffled(c.tokens * c.each);
        const auto values = random_floats(c.tokens * c.each * c.cols, 1);
        const auto factors = random_floats(c.tokens * c.each, 2, 2.0F);
        const auto grads = random_floats(c.tokens * c.cols, 3);
        const auto from = device.put(values);
        const auto weights = device.put(factors);
        const auto dto = device.put(grads);
        const auto dweights = device.make<float>(c.tokens * c.each);
        std::vector<float> expected(values.size());
        std::vector<float> expected_weights;
        for (std::int64_t t = 0; t < c.tokens; ++t) {
            for (std::int64_t k = 0; k < c.each; ++k) {
                const auto at = static_cast<std::size_t>(t * c.each + k);
                LaneSum<float> sum;
                for (std::int64_t i = 0; i < c.cols; ++i) {
                    const auto to = static_cast<std::size_t>(rows[at] * c.cols + i);
                    const float d = grads[static_cast<std::size_t>(t * c.cols + i)];
                    sum.add(i, d, values[to]);
                    expected[to] = factors[at] * d;
                }
                expected_weights.push_back(sum.total());
            }
        }
        const kernels::Matrix in_place = matrix(from.span(), c.tokens * c.each, c.cols, c.cols);
        device->combine_rows_backward(
            {.dto = matrix(dto.span(), c.tokens, c.cols, c.cols),
             .from = in_place,
             .weights = matrix(weights.span(), c.tokens, c.each, c.each),
             .rows = rows,
             .dfrom = in_place,
             .dweights = matrix(dweights.span(), c.tokens, c.each, c.each)},
            device.stream());
        EXPECT_EQ(device.get(from), expected);
        EXPECT_EQ(device.get(dweights), expected_weights);
    }
}

TEST_P(GatingTest, WhatDoesNotFitIsRefusedByName) {
    const auto buffer = device.make<float>(64);
    std::vector<std::int32_t> experts(8);
    auto& stream = device.stream();
    const kernels::GatingArgs fits{.logits = matrix(buffer.span(), 4, 6, 6),
                                   .routing = {.experts = 6, .chosen = 2},
                                   .scores = matrix(buffer.span(), 4, 6, 6),
                                   .weights = matrix(buffer.span(), 4, 2, 2),
                                   .experts = experts};
    auto args = fits;
    args.routing.chosen = 7;
    EXPECT_THROW_WITH(device->gating(args, stream), InternalError,
                      "gating: 7 of 6 experts, from 1 of 1 groups");
    args = fits;
    args.routing.groups = 4;
    EXPECT_THROW_WITH(device->gating(args, stream), InternalError, "from 1 of 4 groups");
    args = fits;
    args.experts = std::span(experts).first(7);
    EXPECT_THROW_WITH(device->gating(args, stream), InternalError,
                      "gating: experts has 7 elements, expected 8");
    args = fits;
    args.bias = DeviceSpan<const float>(buffer.span()).subspan(0, 5);
    EXPECT_THROW_WITH(device->gating(args, stream), InternalError, "bias has 5 elements");
    experts[3] = 6;
    EXPECT_THROW_WITH(device->gating_backward({.scores = fits.scores,
                                               .dweights = fits.weights,
                                               .experts = experts,
                                               .routing = fits.routing,
                                               .dlogits = fits.scores},
                                              stream),
                      InternalError, "gating_backward: expert 6 of 6");
    const std::vector<std::int64_t> rows{0, 1, 4};
    const auto three = matrix(buffer.span(), 3, 4, 4);
    EXPECT_THROW_WITH(
        device->combine_rows(
            {.from = matrix(buffer.span(), 4, 4, 4), .weights = {}, .rows = rows, .to = three},
            stream),
        InternalError, "combine_rows: row 4 of 4");
    EXPECT_THROW_WITH(
        device->combine_rows(
            {.from = three, .weights = {}, .rows = std::span(rows).first(2), .to = three}, stream),
        InternalError, "combine_rows: 2 rows for 3 tokens");
}

}  // namespace
}  // namespace rankwise::test
