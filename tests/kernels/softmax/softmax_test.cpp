// Log-probabilities, entropies and their gradient on every device.
#include "kernels/softmax.hpp"

#include <gtest/gtest.h>

#include <bit>

#include "tests/support/devices.hpp"
#include "tests/support/reference_softmax.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class SoftmaxTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, SoftmaxTest, testing::ValuesIn(device_cases()), device_name);

std::vector<std::uint32_t> bits(const std::vector<float>& values) {
    std::vector<std::uint32_t> result;
    for (float value : values) {
        result.push_back(std::isnan(value) ? 0x7FC00000U : std::bit_cast<std::uint32_t>(value));
    }
    return result;
}

/// A batch of rows with its vocabulary, and what the ops make of it.
struct Batch {
    std::int64_t rows;
    std::int64_t columns;  ///< with padding
    std::int64_t ids;
    ReductionTree tree;
    std::vector<float> logits;  ///< rows columns + 3 apart
    std::vector<float> inverse_temperature;
    std::vector<std::int32_t> targets;

    Batch(std::int64_t row_count, std::int64_t column_count, std::int64_t id_count,
          std::vector<int> radices)
        : rows(row_count),
          columns(column_count),
          ids(id_count),
          tree{std::move(radices)},
          logits(random_floats(row_count * (column_count + 3), 1, 12.0F)) {
        for (std::int64_t t = 0; t < rows; ++t) {
            inverse_temperature.push_back(t % 3 == 0 ? 1.0F : 1.0F / 0.6F);
            targets.push_back(t % 5 == 4 ? -1 : static_cast<std::int32_t>((t * 31) % ids));
        }
    }
    [[nodiscard]] std::vector<Range> leaves() const { return leaf_ranges(columns, tree.leaves()); }
    [[nodiscard]] float* row(std::int64_t t) { return logits.data() + t * (columns + 3); }
    [[nodiscard]] std::span<const float> known(std::int64_t t) const {
        return std::span(logits).subspan(static_cast<std::size_t>(t * (columns + 3)),
                                         static_cast<std::size_t>(ids));
    }
};

struct Result {
    std::vector<float> statistics;
    std::vector<float> target;
    std::vector<float> logprob;
    std::vector<float> entropy;
    std::vector<float> maximum;
    std::vector<float> sum;
};

Result run(const DeviceUnderTest& device, const Batch& batch) {
    const auto leaves = batch.leaves();
    const auto logits = device.put(batch.logits);
    const auto statistics =
        device.make<float>(batch.rows * static_cast<std::int64_t>(leaves.size()) * 3);
    const auto target = device.put(std::vector<float>(static_cast<std::size_t>(batch.rows), -7.0F));
    const auto logprob = device.make<float>(batch.rows);
    const auto entropy = device.make<float>(batch.rows);
    const auto maximum = device.make<float>(batch.rows);
    const auto sum = device.make<float>(batch.rows);
    device->vocabulary_statistics(
        {.logits = matrix(logits.span(), batch.rows, batch.columns, batch.columns + 3),
         .leaves = leaves,
         .ids = batch.ids,
         .inverse_temperature = batch.inverse_temperature,
         .targets = batch.targets,
         .statistics = statistics.span(),
         .target = target.span()},
        device.stream());
    device->merge_statistics({.statistics = statistics.span(),
                              .tree = batch.tree,
                              .rows = batch.rows,
                              .target = target.span(),
                              .logprob = logprob.span(),
                              .entropy = entropy.span(),
                              .maximum = maximum.span(),
                              .sum = sum.span()},
                             device.stream());
    return {device.get(statistics), device.get(target),  device.get(logprob),
            device.get(entropy),    device.get(maximum), device.get(sum)};
}

Result reference(const Batch& batch) {
    Result result;
    for (std::int64_t t = 0; t < batch.rows; ++t) {
        const auto at = static_cast<std::size_t>(t);
        const float scale = batch.inverse_temperature[at];
        std::vector<LeafStatistics> leaves;
        for (Range range : batch.leaves()) {
            const Range known = intersect(range, {0, batch.ids});
            leaves.push_back(reference_leaf(
                batch.known(t).subspan(static_cast<std::size_t>(known.empty() ? 0 : known.begin),
                                       static_cast<std::size_t>(known.size())),
                scale));
            const LeafStatistics& leaf = leaves.back();
            result.statistics.insert(result.statistics.end(), {leaf.m, leaf.s, leaf.t});
        }
        const std::int32_t id = batch.targets[at];
        result.target.push_back(id < 0 ? -7.0F
                                       : batch.known(t)[static_cast<std::size_t>(id)] * scale);
        const RowStatistics row = reference_merge(batch.tree, leaves, result.target.back());
        result.logprob.push_back(row.logprob);
        result.entropy.push_back(row.entropy);
        result.maximum.push_back(row.maximum);
        result.sum.push_back(row.sum);
    }
    return result;
}

void expect_equal(const Result& got, const Result& expected) {
    EXPECT_EQ(bits(got.statistics), bits(expected.statistics));
    EXPECT_EQ(bits(got.target), bits(expected.target));
    EXPECT_EQ(bits(got.logprob), bits(expected.logprob));
    EXPECT_EQ(bits(got.entropy), bits(expected.entropy));
    EXPECT_EQ(bits(got.maximum), bits(expected.maximum));
    EXPECT_EQ(bits(got.sum), bits(expected.sum));
}

const std::vector<Batch> kBatches = {
    {1, 7, 7, {}},           {4, 100, 97, {2, 2, 2}},  {150, 300, 300, {2, 7}},
    {3, 16, 16, {3, 3}},     {5, 130, 100, {2, 2, 3}}, {0, 32, 32, {2}},
    {40, 1000, 1000, {5, 3}}};

TEST_P(SoftmaxTest, StatisticsAndTheirMergeAreTheContractsSequence) {
    for (const Batch& batch : kBatches) expect_equal(run(device, batch), reference(batch));
}

TEST_P(SoftmaxTest, LogprobsAndEntropiesAreNearTheExactValues) {
    for (const Batch& batch : kBatches) {
        const Result got = run(device, batch);
        for (std::int64_t t = 0; t < batch.rows; ++t) {
            const auto at = static_cast<std::size_t>(t);
            const DoubleSoftmax exact(batch.known(t), batch.inverse_temperature[at]);
            // x up to 20 rounded (2^-20), its exponent's error in s, log and two differences.
            constexpr double kBound = 4 * 20 * 0x1p-24;
            if (batch.targets[at] >= 0) {
                EXPECT_NEAR(got.logprob[at],
                            exact.logprobs[static_cast<std::size_t>(batch.targets[at])], kBound);
            }
            EXPECT_NEAR(got.entropy[at], exact.entropy, kBound);
        }
    }
}

TEST_P(SoftmaxTest, PartsOfTheVocabularyGiveTheSameStatisticsAsTheWhole) {
    // As tensor ranks see it: columns of two of the four leaves each.
    const Batch batch(6, 200, 190, {2, 2});
    const Result whole = run(device, batch);
    const auto leaves = batch.leaves();
    const auto logits = device.put(batch.logits);
    const auto target = device.put(std::vector<float>(6, -7.0F));
    const auto all = matrix(logits.span(), 6, 200, 203);
    for (const std::size_t first : {0U, 2U}) {
        const Range part{leaves[first].begin, leaves[first + 1].end};
        const auto statistics = device.make<float>(6 * 2 * 3);
        device->vocabulary_statistics({.logits = all.col_range(part),
                                       .first_column = part.begin,
                                       .leaves = std::span(leaves).subspan(first, 2),
                                       .ids = batch.ids,
                                       .inverse_temperature = batch.inverse_temperature,
                                       .targets = batch.targets,
                                       .statistics = statistics.span(),
                                       .target = target.span()},
                                      device.stream());
        const auto got = device.get(statistics);
        for (std::size_t t = 0; t < 6; ++t) {
            for (std::size_t i = 0; i < 6; ++i) {
                EXPECT_EQ(got[t * 6 + i], whole.statistics[t * 12 + first * 3 + i]);
            }
        }
    }
    EXPECT_EQ(device.get(target), whole.target);
}

TEST_P(SoftmaxTest, LogitsOfMinusInfinityHaveProbabilityZero) {
    Batch batch(4, 96, 96, {2, 2});
    for (std::int64_t c = 0; c < 48; ++c) batch.row(0)[c] = -kInfinity;  // two whole leaves
    batch.row(1)[3] = -kInfinity;
    for (std::int64_t c = 0; c < 95; ++c) batch.row(2)[c] = -kInfinity;  // one id is left
    batch.targets = {50, 3, 95, 1};
    const Result got = run(device, batch);
    expect_equal(got, reference(batch));
    EXPECT_EQ(got.logprob[1], -kInfinity);
    EXPECT_EQ(got.logprob[2], 0.0F);
    EXPECT_EQ(got.entropy[2], 0.0F);
    const DoubleSoftmax exact(batch.known(0), 1.0);
    EXPECT_NEAR(got.logprob[0], exact.logprobs[50], 1e-5);
    EXPECT_NEAR(got.entropy[0], exact.entropy, 1e-5);
}

TEST_P(SoftmaxTest, ANaNOrNothingFiniteMakesItsRowNaNAndNoOther) {
    Batch batch(4, 96, 96, {2, 2});
    batch.targets = {1, 1, 1, 1};
    batch.row(1)[70] = std::numeric_limits<float>::quiet_NaN();
    for (std::int64_t c = 0; c < 96; ++c) batch.row(2)[c] = -kInfinity;
    for (std::int64_t c = 0; c < 96; ++c) batch.row(3)[c] = std::numeric_limits<float>::quiet_NaN();
    const Result got = run(device, batch);
    EXPECT_TRUE(std::isfinite(got.logprob[0]) && std::isfinite(got.entropy[0]));
    for (std::size_t row : {1U, 2U, 3U}) {
        EXPECT_TRUE(std::isnan(got.logprob[row])) << row;
        EXPECT_TRUE(std::isnan(got.entropy[row])) << row;
    }
}

struct Gradient {
    std::vector<float> maximum;
    std::vector<float> sum;
    std::vector<float> coefficient;
};

std::vector<float> run_gradient(const DeviceUnderTest& device, const Batch& batch,
                                const Gradient& g, Range part) {
    const auto logits = device.put(batch.logits);
    const auto maximum = device.put(g.maximum);
    const auto sum = device.put(g.sum);
    device->logprob_gradient(
        {.logits =
             matrix(logits.span(), batch.rows, batch.columns, batch.columns + 3).col_range(part),
         .first_column = part.begin,
         .ids = batch.ids,
         .inverse_temperature = batch.inverse_temperature,
         .targets = batch.targets,
         .coefficient = g.coefficient,
         .maximum = maximum.span(),
         .sum = sum.span()},
        device.stream());
    return device.get(logits);
}

TEST_P(SoftmaxTest, TheGradientIsTheContractsSequenceForTheWholeAndForAPart) {
    for (const Batch& batch : kBatches) {
        const Result forward = reference(batch);
        const Gradient g{forward.maximum, forward.sum, random_floats(batch.rows, 9)};
        for (const Range part :
             {Range{0, batch.columns}, Range{batch.columns / 3, batch.columns}}) {
            std::vector<float> expected = batch.logits;
            const kernels::cpu::FlushDenormals flush;
            for (std::int64_t t = 0; t < batch.rows; ++t) {
                const auto at = static_cast<std::size_t>(t);
                const float scale = batch.inverse_temperature[at];
                for (std::int64_t c = part.begin; c < part.end; ++c) {
                    float& x = expected[static_cast<std::size_t>(t * (batch.columns + 3) + c)];
                    const float p = exp32(x * scale - g.maximum[at]) / g.sum[at];
                    const float one = c == batch.targets[at] ? 1.0F : 0.0F;
                    x = c < batch.ids ? g.coefficient[at] * scale * (one - p) : 0.0F;
                }
            }
            EXPECT_EQ(run_gradient(device, batch, g, part), expected);
        }
    }
}

TEST_P(SoftmaxTest, TheGradientIsTheSlopeOfDifferencesInDouble) {
    const Batch batch(5, 20, 17, {});
    const Result forward = reference(batch);
    const Gradient g{forward.maximum, forward.sum, random_floats(5, 9)};
    const auto got = run_gradient(device, batch, g, {0, 20});
    constexpr float kStep = 0x1p-10F;
    for (std::int64_t t = 0; t < 5; ++t) {
        const auto at = static_cast<std::size_t>(t);
        if (batch.targets[at] < 0) continue;
        for (std::size_t c = 0; c < 17; ++c) {
            const auto logprob = [&](float by) {
                std::vector<float> moved(batch.known(t).begin(), batch.known(t).end());
                moved[c] = std::round(moved[c] * 0x1p16F) * 0x1p-16F + by;  // steps are exact
                return DoubleSoftmax(moved, batch.inverse_temperature[at])
                    .logprobs[static_cast<std::size_t>(batch.targets[at])];
            };
            const double slope = (logprob(kStep) - logprob(-kStep)) / (2.0 * 0x1p-10);
            EXPECT_NEAR(got[at * 23 + c], static_cast<double>(g.coefficient[at]) * slope, 2e-5);
        }
        for (std::size_t c = 17; c < 20; ++c) EXPECT_EQ(got[at * 23 + c], 0.0F);
    }
}

TEST_P(SoftmaxTest, WhatDoesNotFitIsRefusedByName) {
    const auto buffer = device.make<float>(2 * 64);
    const auto three = device.make<float>(2 * 3);
    const auto two = device.make<float>(2);
    const std::vector<Range> leaves = {{0, 64}};
    const std::vector<float> scales = {1.0F, 1.0F};
    const std::vector<std::int32_t> targets = {0, 1};
    auto& stream = device.stream();
    const kernels::VocabularyStatisticsArgs good{.logits = matrix(buffer.span(), 2, 64, 64),
                                                 .leaves = leaves,
                                                 .ids = 64,
                                                 .inverse_temperature = scales,
                                                 .targets = targets,
                                                 .statistics = three.span(),
                                                 .target = two.span()};
    auto args = good;
    args.logits.dtype = DType::f16;
    EXPECT_THROW_WITH(device->vocabulary_statistics(args, stream), InternalError, "logits is F16");
    args = good;
    args.first_column = 16;
    EXPECT_THROW_WITH(device->vocabulary_statistics(args, stream), InternalError,
                      "a leaf of columns 0 to 64, the logits are of columns 16 to 80");
    args = good;
    const std::vector<Range> odd = {{8, 64}};
    args.leaves = odd;
    EXPECT_THROW_WITH(device->vocabulary_statistics(args, stream), InternalError,
                      "begins at column 8, expected a multiple of 16");
    args = good;
    args.targets = std::span(targets).first(1);
    EXPECT_THROW_WITH(device->vocabulary_statistics(args, stream), InternalError,
                      "targets has 1 elements, expected 2");
    args = good;
    args.statistics = two.span();
    EXPECT_THROW_WITH(device->vocabulary_statistics(args, stream), InternalError,
                      "statistics has 2 elements, expected 6");

    const kernels::MergeStatisticsArgs merge{.statistics = three.span(),
                                             .tree = {},
                                             .rows = 2,
                                             .target = two.span(),
                                             .logprob = two.span(),
                                             .entropy = {},
                                             .maximum = {},
                                             .sum = two.span()};
    EXPECT_NO_THROW(device->merge_statistics(merge, stream));
    auto wrong = merge;
    wrong.tree.radices = {17};
    EXPECT_THROW_WITH(device->merge_statistics(wrong, stream), InternalError, "at most 16");
    wrong = merge;
    wrong.entropy = three.span();
    EXPECT_THROW_WITH(device->merge_statistics(wrong, stream), InternalError,
                      "entropy has 6 elements, expected 2");

    kernels::LogprobGradientArgs gradient{.logits = matrix(buffer.span(), 2, 64, 64),
                                          .ids = 64,
                                          .inverse_temperature = scales,
                                          .targets = targets,
                                          .coefficient = std::span(scales).first(1),
                                          .maximum = two.span(),
                                          .sum = two.span()};
    EXPECT_THROW_WITH(device->logprob_gradient(gradient, stream), InternalError,
                      "coefficient has 1 elements, expected 2");
}

}  // namespace
}  // namespace rankwise::test
