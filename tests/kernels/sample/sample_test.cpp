// Sampling on every device: random words, Gumbel-max, filters, and the frequencies of what is
// drawn.
#include "kernels/sample.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/cpu/sample_kernels.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/op_test.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

using kernels::SampleRow;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class SampleTest : public OnEveryDevice {
  protected:
    std::vector<std::int32_t> sample(const std::vector<float>& logits, std::int64_t columns,
                                     std::int64_t ids, const std::vector<SampleRow>& rows) {
        const auto count = static_cast<std::int64_t>(rows.size());
        const auto buffer = device.put(logits);
        std::vector<std::int32_t> tokens(rows.size(), -1);
        device->sample({.logits = matrix(buffer.span(), count, columns, columns),
                        .ids = ids,
                        .rows = rows,
                        .tokens = tokens},
                       device.stream());
        return tokens;
    }
    std::vector<double> probabilities(const std::vector<float>& logits, std::int64_t columns,
                                      std::int64_t ids, const std::vector<SampleRow>& rows) {
        const auto count = static_cast<std::int64_t>(rows.size());
        const auto buffer = device.put(logits);
        const auto out = device.make<double>(count * columns);
        device->filtered_probabilities({.logits = matrix(buffer.span(), count, columns, columns),
                                        .ids = ids,
                                        .rows = rows,
                                        .probabilities = out.span()},
                                       device.stream());
        return device.get(out);
    }
};
INSTANTIATE_TEST_SUITE_P(Devices, SampleTest, testing::ValuesIn(device_cases()), device_name);

SampleRow row_of(std::uint32_t position, double temperature = 1.0) {
    SampleRow row;
    row.key = RandomStream(5, Purpose::sampling, 77, 3, 9).key();
    row.position = position;
    row.temperature = temperature;
    return row;
}

TEST(SampleKernels, TheVectorsOfRandomWordsAreThoseOfTheStream) {
    const RandomStream stream(5, Purpose::sampling, 77, 3, 9);
    for (const kernels::Isa isa : kernels::available_isas()) {
        const auto& kernels = isa != kernels::Isa::avx2 ? kernels::cpu::avx512::sample_kernels()
                                                        : kernels::cpu::avx2::sample_kernels();
        for (const std::uint32_t position : {0U, 1U, 0xFFFFFFFFU}) {
            std::vector<std::uint32_t> words(64);
            kernels.words({stream.key()[0], stream.key()[1], position, 0}, words.data());
            for (std::uint32_t i = 0; i < 64; ++i) EXPECT_EQ(words[i], stream.word(position, i));
        }
    }
}

/// argmax of x - log(-log(u)) with the lane functions, ids ascending.
std::int32_t gumbel_max(std::span<const float> logits, const SampleRow& row) {
    const RandomStream stream(5, Purpose::sampling, 77, 3, 9);
    std::int32_t best = 0;
    float value = -kInfinity;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        const float u = uniform_open(stream.word(row.position, static_cast<std::uint32_t>(i)));
        const float noise = log32(-log32(u));
        const float candidate = logits[i] / static_cast<float>(row.temperature) - noise;
        if (candidate > value) {
            value = candidate;
            best = static_cast<std::int32_t>(i);
        }
    }
    return best;
}

TEST_P(SampleTest, TheTokenIsTheGumbelMaximumOfTheRowsOwnStream) {
    for (const std::int64_t columns : {1, 5, 64, 100, 300}) {
        const std::int64_t ids = columns == 100 ? 90 : columns;
        std::vector<SampleRow> rows;
        for (std::uint32_t t = 0; t < 40; ++t)
            rows.push_back(row_of(t * 17, t % 2 == 0 ? 1.0 : 0.6));
        const auto logits = random_floats(40 * columns, 1, 3.0F);
        const auto tokens = sample(logits, columns, ids, rows);
        for (std::size_t t = 0; t < rows.size(); ++t) {
            const auto row = std::span(logits).subspan(t * static_cast<std::size_t>(columns),
                                                       static_cast<std::size_t>(ids));
            EXPECT_EQ(tokens[t], gumbel_max(row, rows[t])) << columns << " " << t;
        }
    }
}

/// Logits of many ids, most of which cannot win: alike, spread a little and far, far from zero,
/// ascending (the best so far is always near), with ids that are never drawn.
std::vector<std::vector<float>> many_logits(std::size_t ids) {
    std::vector<std::vector<float>> all;
    for (const float spread : {0.0F, 0.01F, 1.0F, 4.0F, 20.0F, 300.0F})
        all.push_back(random_floats(static_cast<std::int64_t>(ids), 2, spread));
    all.push_back(all[2]);
    for (float& x : all.back()) x += 20'000.0F;
    all.push_back(all[2]);
    for (std::size_t i = 0; i < ids; ++i) all.back()[i] += static_cast<float>(i) * 0.01F;
    all.push_back(all[2]);
    for (std::size_t i = 0; i < ids; ++i) {
        if (i % 1000 < 700) all.back()[i] = i % 3 == 0 ? kNan : -kInfinity;
    }
    return all;
}

TEST_P(SampleTest, WhatCannotWinIsLeftOutWithoutChangingWhatWins) {
    constexpr std::int64_t kIds = 5000;
    for (const std::vector<float>& row : many_logits(kIds)) {
        std::vector<SampleRow> rows;
        std::vector<float> logits;
        for (std::uint32_t t = 0; t < 24; ++t) {
            rows.push_back(row_of(t, t % 3 == 0 ? 0.3 : t % 3 == 1 ? 1.0 : 2.5));
            logits.insert(logits.end(), row.begin(), row.end());
        }
        const auto tokens = sample(logits, kIds, kIds, rows);
        for (std::size_t t = 0; t < rows.size(); ++t)
            EXPECT_EQ(tokens[t], gumbel_max(row, rows[t])) << row[1] << " " << t;
    }
}

TEST_P(SampleTest, PartsOfTheVocabularyComparedByScoreGiveTheTokenOfTheWhole) {
    constexpr std::int64_t columns = 200;
    constexpr std::int64_t ids = 190;
    std::vector<SampleRow> rows;
    for (std::uint32_t t = 0; t < 60; ++t) rows.push_back(row_of(t, t % 3 == 0 ? 0.0 : 0.8));
    auto logits = random_floats(60 * columns, 4, 1.0F);
    std::fill_n(logits.begin(), columns, 1.0F);                // ties: the lower id
    std::fill_n(logits.begin() + 3 * columns, columns, kNan);  // nothing at all: id 0
    const auto whole = sample(logits, columns, ids, rows);
    const auto buffer = device.put(logits);
    std::vector<std::int32_t> best(rows.size(), 0);
    std::vector<float> best_score(rows.size(), -kInfinity);
    for (const Range part : {Range{0, 48}, Range{48, 112}, Range{112, 200}}) {
        std::vector<std::int32_t> tokens(rows.size());
        std::vector<float> scores(rows.size());
        device->sample({.logits = matrix(buffer.span(), 60, columns, columns).col_range(part),
                        .ids = ids,
                        .first_column = part.begin,
                        .rows = rows,
                        .tokens = tokens,
                        .scores = scores},
                       device.stream());
        for (std::size_t t = 0; t < rows.size(); ++t) {
            if (!(scores[t] > best_score[t])) continue;
            best[t] = tokens[t];
            best_score[t] = scores[t];
        }
    }
    EXPECT_EQ(best, whole);
}

TEST_P(SampleTest, ARowsTokenDoesNotDependOnTheOtherRows) {
    const auto logits = random_floats(300 * 97, 2, 3.0F);
    std::vector<SampleRow> rows;
    for (std::uint32_t t = 0; t < 300; ++t) rows.push_back(row_of(t, 0.8));
    const auto together = sample(logits, 97, 97, rows);
    for (std::size_t t = 0; t < 300; t += 37) {
        const std::vector<float> one(logits.begin() + static_cast<std::ptrdiff_t>(t * 97),
                                     logits.begin() + static_cast<std::ptrdiff_t>(t * 97 + 97));
        EXPECT_EQ(sample(one, 97, 97, {rows[t]})[0], together[t]);
    }
}

TEST_P(SampleTest, TemperatureZeroTakesTheLargestAndOfEqualOnesTheLowerId) {
    std::vector<float> logits = random_floats(4 * 100, 3);
    logits[57] = logits[41] = logits[99] = 5.0F;
    logits[100 + 95] = 7.0F;  // padding
    logits[100 + 3] = 6.0F;
    for (std::size_t c = 0; c < 100; ++c) logits[200 + c] = -kInfinity;
    logits[300 + 20] = kNan;
    logits[300 + 63] = 2.0F;
    const std::vector<SampleRow> rows(4, row_of(0, 0.0));
    EXPECT_EQ(sample(logits, 100, 90, rows), (std::vector<std::int32_t>{41, 3, 0, 63}));
}

TEST_P(SampleTest, NaNAndMinusInfinityAreNeverDrawn) {
    std::vector<float> logits(70, kNan);
    logits[3] = logits[69] = -kInfinity;
    logits[68] = -50.0F;
    for (std::uint32_t position = 0; position < 20; ++position) {
        EXPECT_EQ(sample(logits, 70, 70, {row_of(position)})[0], 68);
        SampleRow filtered = row_of(position);
        filtered.top_k = 2;
        filtered.top_p = 0.5;
        EXPECT_EQ(sample(logits, 70, 70, {filtered})[0], 68);
    }
}

TEST_P(SampleTest, AForcedIdIsTaken) {
    std::vector<SampleRow> rows(2, row_of(0));
    rows[1].forced = 6;
    const auto tokens = sample(std::vector<float>(16, 0.0F), 8, 8, rows);
    EXPECT_EQ(tokens[1], 6);
    EXPECT_EQ(probabilities(std::vector<float>(16, 0.0F), 8, 8, rows)[8 + 6], 1.0);
}

TEST_P(SampleTest, TopKKeepsTiesAtTheKthPlace) {
    SampleRow row = row_of(0);
    row.top_k = 3;
    const auto p = probabilities({1.0F, 4.0F, 2.0F, 2.0F, 0.0F, 3.0F}, 6, 6, {row});
    const double sum = std::exp(4.0) + std::exp(3.0) + 2 * std::exp(2.0);
    const std::vector<double> expected = {
        0.0, std::exp(4.0) / sum, std::exp(2.0) / sum, std::exp(2.0) / sum,
        0.0, std::exp(3.0) / sum};
    for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(p[i], expected[i], 1e-15) << i;
    EXPECT_EQ(p[0], 0.0);
    EXPECT_EQ(p[4], 0.0);
}

TEST_P(SampleTest, TopPKeepsTheFewestIdsWhoseShareReachesItAndAtLeastTheLargest) {
    // Probabilities 1/2, 1/4, 1/8, 1/8.
    const auto log2_logits = std::vector<float>{0.0F, -0.6931472F, -1.3862944F, -1.3862944F};
    const auto kept = [&](double top_p) {
        SampleRow row = row_of(0);
        row.top_p = top_p;
        const auto p = probabilities(log2_logits, 4, 4, {row});
        std::vector<bool> result;
        for (double value : p) result.push_back(value > 0.0);
        return result;
    };
    EXPECT_EQ(kept(0.95), (std::vector<bool>{true, true, true, true}));
    EXPECT_EQ(kept(0.80),
              (std::vector<bool>{true, true, true, false}));  // of equal ones the higher id goes
    EXPECT_EQ(kept(0.60), (std::vector<bool>{true, true, false, false}));
    EXPECT_EQ(kept(0.30), (std::vector<bool>{true, false, false, false}));
    EXPECT_EQ(kept(0.0), (std::vector<bool>{true, false, false, false}));
}

TEST_P(SampleTest, TopPDropsAnIdAtWhichTheRestIsReachedExactly) {
    SampleRow row = row_of(0);
    row.top_p = 0.5;
    EXPECT_EQ(probabilities({3.0F, 3.0F}, 2, 2, {row}), (std::vector<double>{1.0, 0.0}));
}

TEST_P(SampleTest, MinPDropsWhatIsFarBelowTheMostProbable) {
    SampleRow row = row_of(0);
    row.min_p = 0.3;
    const auto p = probabilities({0.0F, -1.0F, -1.25F, -5.0F}, 4, 4, {row});
    EXPECT_NEAR(p[0], 1.0 / (1.0 + std::exp(-1.0)), 1e-15);
    EXPECT_GT(p[1], 0.0);
    EXPECT_EQ(p[2], 0.0);
    EXPECT_EQ(p[3], 0.0);
}

TEST_P(SampleTest, WhatFiltersDropIsNeverDrawnAndTheRestIsDrawnAsWithoutThem) {
    // Gumbel-max over what is kept: if the unfiltered winner is kept, it is the winner.
    const auto logits = random_floats(500 * 200, 6, 4.0F);
    std::vector<SampleRow> plain;
    std::vector<SampleRow> filtered;
    for (std::uint32_t t = 0; t < 500; ++t) {
        plain.push_back(row_of(t, 0.9));
        filtered.push_back(plain.back());
        filtered.back().top_k = t % 3 == 0 ? 20 : 0;
        filtered.back().top_p = t % 3 == 1 ? 0.8 : 1.0;
        filtered.back().min_p = t % 3 == 2 ? 0.1 : 0.0;
    }
    const auto free = sample(logits, 200, 200, plain);
    const auto tokens = sample(logits, 200, 200, filtered);
    const auto p = probabilities(logits, 200, 200, filtered);
    int same = 0;
    for (std::size_t t = 0; t < 500; ++t) {
        EXPECT_GT(p[t * 200 + static_cast<std::size_t>(tokens[t])], 0.0);
        if (p[t * 200 + static_cast<std::size_t>(free[t])] > 0.0) {
            EXPECT_EQ(tokens[t], free[t]);
            ++same;
        }
    }
    EXPECT_GT(same, 250);
    EXPECT_LT(same, 500);
}

TEST_P(SampleTest, FrequenciesAreTheProbabilities) {
    // Chi-square over 40,000 draws; 99.99 % points, so that the fixed stream either fits or is
    // wrong.
    constexpr std::size_t kDraws = 40000;
    const auto one_row = random_floats(12, 8, 2.0F);
    for (const bool filter : {false, true}) {
        std::vector<float> logits;
        std::vector<SampleRow> rows;
        for (std::size_t draw = 0; draw < kDraws; ++draw) {
            logits.insert(logits.end(), one_row.begin(), one_row.end());
            SampleRow row = row_of(static_cast<std::uint32_t>(draw), 0.7);
            row.key = RandomStream(draw / 100, Purpose::sampling, draw % 10).key();
            row.top_p = filter ? 0.9 : 1.0;
            rows.push_back(row);
        }
        const auto tokens = sample(logits, 12, 12, rows);
        const auto p = probabilities(one_row, 12, 12, {rows[0]});
        EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1.0, 1e-15);
        double chi_square = 0.0;
        int kinds = 0;
        for (std::size_t id = 0; id < 12; ++id) {
            const auto count =
                static_cast<double>(std::ranges::count(tokens, static_cast<std::int32_t>(id)));
            const double expected = p[id] * static_cast<double>(kDraws);
            if (expected == 0.0) {
                EXPECT_EQ(count, 0.0);
                continue;
            }
            chi_square += (count - expected) * (count - expected) / expected;
            ++kinds;
        }
        EXPECT_EQ(kinds < 12, filter);
        EXPECT_LT(chi_square, 37.4);  // 11 degrees of freedom; fewer have a lower point
    }
}

TEST_P(SampleTest, WhatDoesNotFitIsRefusedByName) {
    const auto buffer = device.make<float>(16);
    const auto logits = matrix(buffer.span(), 2, 8, 8);
    std::vector<std::int32_t> tokens(2);
    const auto attempt = [&](std::int64_t ids, const SampleRow& row, std::size_t count = 2) {
        const std::vector<SampleRow> rows(count, row);
        device->sample({.logits = logits, .ids = ids, .rows = rows, .tokens = tokens},
                       device.stream());
    };
    EXPECT_THROW_WITH(attempt(9, row_of(0)), InternalError, "9 ids in 8 columns");
    EXPECT_THROW_WITH(attempt(0, row_of(0)), InternalError, "0 ids in 8 columns");
    EXPECT_THROW_WITH(attempt(8, row_of(0), 3), InternalError, "rows has 3 elements, expected 2");
    SampleRow row = row_of(0);
    row.forced = 8;
    EXPECT_THROW_WITH(attempt(8, row), InternalError, "row 0 forces id 8 of 8");
    EXPECT_THROW_WITH(attempt(8, row_of(0, -1.0)), InternalError, "temperature -1");
    EXPECT_THROW_WITH(attempt(8, row_of(0, std::nan(""))), InternalError, "temperature nan");
    row = row_of(0);
    row.top_p = 1.5;
    EXPECT_THROW_WITH(attempt(8, row), InternalError, "top_p 1.5");
    tokens.resize(1);
    EXPECT_THROW_WITH(attempt(8, row_of(0)), InternalError, "tokens has 1 elements, expected 2");
    const std::vector<SampleRow> rows(2, row_of(0));
    const auto out = device.make<double>(15);
    EXPECT_THROW_WITH(device->filtered_probabilities(
                          {.logits = logits, .ids = 8, .rows = rows, .probabilities = out.span()},
                          device.stream()),
                      InternalError, "probabilities has 15 elements, expected 16");
    EXPECT_THROW_WITH(
        device->filtered_probabilities(
            {.logits = as_bf16(logits), .ids = 8, .rows = rows, .probabilities = out.span()},
            device.stream()),
        InternalError, "logits is BF16");
}

}  // namespace
}  // namespace rankwise::test
