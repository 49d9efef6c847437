#include "src/update/plan.hpp"

#include <gtest/gtest.h>

namespace rankwise::update {
namespace {

std::vector<SampleSize> groups_of(std::int64_t groups, std::int64_t samples, std::int64_t prompt,
                                  std::int64_t answer) {
    std::vector<SampleSize> out;
    for (std::int64_t g = 0; g < groups; ++g) {
        for (std::int64_t s = 0; s < samples; ++s) out.push_back({g, prompt, answer});
    }
    return out;
}

TEST(Plan, ABundleIsFilledUpToTheLimitAndCountsItsPromptOnce) {
    const auto plan =
        plan_minibatch(groups_of(1, 5, 10, 30), {.chunk_tokens = 100, .chunk_multiple = 1});
    ASSERT_EQ(plan.bundles.size(), 2U);
    EXPECT_EQ(plan.bundles[0], (Bundle{{0, 3}, 100}));
    EXPECT_EQ(plan.bundles[1], (Bundle{{3, 5}, 70}));
}

TEST(Plan, ASampleLongerThanTheLimitIsABundleByItself) {
    const auto plan =
        plan_minibatch(groups_of(2, 1, 10, 500), {.chunk_tokens = 100, .chunk_multiple = 1});
    EXPECT_EQ(plan.bundles.size(), 2U);
}

TEST(Plan, ChunksAreAMultipleAndFollowTheMiddleOfEachBundle) {
    const PlanOptions options{.chunk_tokens = 100, .chunk_multiple = 8};
    const auto samples = groups_of(20, 2, 8, 46);  // 20 bundles of 100 tokens
    const auto plan = plan_minibatch(samples, options);
    EXPECT_EQ(plan.chunks.size(), 24U);  // 20 rounded up to a multiple of 8
    std::int64_t next = 0;
    std::int64_t before = 0;
    for (std::size_t c = 0; c < plan.chunks.size(); ++c) {
        EXPECT_LE(plan.chunks[c].begin, plan.chunks[c].end);
        EXPECT_EQ(plan.chunks[c].begin, next);
        next = plan.chunks[c].end;
        for (std::int64_t b = plan.chunks[c].begin; b < plan.chunks[c].end; ++b) {
            EXPECT_EQ(static_cast<std::int64_t>(c), 24 * (2 * before + 100) / (2 * 2000));
            before += 100;
        }
    }
    EXPECT_EQ(next, 20);
}

TEST(Plan, EverySampleHasOneRankForAnyNumberOfRanks) {
    const auto samples = groups_of(7, 3, 8, 40);
    const auto plan = plan_minibatch(samples, {.chunk_tokens = 64, .chunk_multiple = 8});
    for (std::int64_t ranks : {1, 2, 3, 8, 40}) {
        std::vector<int> seen(samples.size(), 0);
        for (std::int64_t wave = 0; wave < plan.waves(ranks); ++wave) {
            for (std::int64_t rank = 0; rank < ranks; ++rank) {
                const Range bundles = plan.chunk(wave, ranks, rank);
                for (std::int64_t b = bundles.begin; b < bundles.end; ++b) {
                    const Range range = plan.bundles[static_cast<std::size_t>(b)].samples;
                    for (std::int64_t s = range.begin; s < range.end; ++s) {
                        ++seen[static_cast<std::size_t>(s)];
                        EXPECT_EQ(plan.ranks_of_samples(ranks).at(static_cast<std::size_t>(s)),
                                  rank);
                    }
                }
            }
        }
        EXPECT_EQ(seen, std::vector<int>(samples.size(), 1));
    }
}

TEST(Plan, AnEmptyMinibatchHasNoChunks) {
    EXPECT_EQ(plan_minibatch({}, {}).waves(3), 0);
}

TEST(Plan, SamplesOutOfOrderAreRefused) {
    const std::vector<SampleSize> samples{{1, 2, 3}, {0, 2, 3}};
    EXPECT_THROW((void)plan_minibatch(samples, {}), InternalError);
}

}  // namespace
}  // namespace rankwise::update
