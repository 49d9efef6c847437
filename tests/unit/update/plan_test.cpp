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

TEST(Plan, AnswersWithoutTokensJoinTheirGroupsBundle) {
    const std::vector<SampleSize> samples{{0, 10, 0}, {0, 10, 30}, {1, 8, 0}, {1, 8, 0}};
    const auto plan = plan_minibatch(samples, {.chunk_tokens = 40, .chunk_multiple = 2});
    ASSERT_EQ(plan.bundles.size(), 2U);
    EXPECT_EQ(plan.bundles[0], (Bundle{{0, 2}, 40}));
    EXPECT_EQ(plan.bundles[1], (Bundle{{2, 4}, 8}));
    EXPECT_EQ(plan_minibatch(std::vector<SampleSize>{{0, 0, 0}}, {}).waves(2), 0);
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

// By hand: T = 100, chunk_tokens 30 and multiple 2 give C = 4. Bundles of 10, 50, 5, 35 tokens have
// u = 0, 10, 60, 65 before them: 4 * 10 / 200 = 0, 4 * 70 / 200 = 1, 4 * 125 / 200 = 2 and
// 4 * 165 / 200 = 3, each rounded down.
TEST(Plan, UnevenBundlesGoWhereTheirMiddlesLie) {
    const std::vector<SampleSize> samples{{0, 2, 8}, {1, 20, 30}, {2, 1, 4}, {3, 5, 30}};
    const auto plan = plan_minibatch(samples, {.chunk_tokens = 30, .chunk_multiple = 2});
    EXPECT_EQ(plan.chunks, (std::vector<Range>{{0, 1}, {1, 2}, {2, 3}, {3, 4}}));
    EXPECT_EQ(plan.waves(1), 4);
    EXPECT_EQ(plan.waves(3), 2);
    EXPECT_EQ(plan.chunk(1, 3, 0), (Range{3, 4}));
    EXPECT_TRUE(plan.chunk(1, 3, 1).empty());
    EXPECT_EQ(plan.ranks_of_samples(3), (std::vector<std::int64_t>{0, 1, 2, 0}));
}

// One bundle of 90 in the middle of a batch of 100 leaves chunks empty: C = 10 of 10 tokens each;
// the middles lie at 2.5, 50 and 97.5.
TEST(Plan, ALongBundleLeavesChunksEmptyAndTheyAreSkipped) {
    const std::vector<SampleSize> samples{{0, 1, 4}, {1, 10, 80}, {2, 1, 4}};
    const auto plan = plan_minibatch(samples, {.chunk_tokens = 10, .chunk_multiple = 5});
    ASSERT_EQ(plan.chunks.size(), 10U);
    for (std::size_t c = 0; c < 10; ++c) {
        const bool full = c == 0 || c == 5 || c == 9;
        EXPECT_EQ(plan.chunks[c].size(), full ? 1 : 0) << c;
    }
}

TEST(Plan, AGroupsSamplesAreCutInOrderAndAFreshGroupStartsAFreshBundle) {
    const std::vector<SampleSize> samples{{0, 10, 20}, {0, 10, 30}, {0, 10, 31}, {4, 10, 1}};
    const auto plan = plan_minibatch(samples, {.chunk_tokens = 60, .chunk_multiple = 1});
    EXPECT_EQ(plan.bundles, (std::vector<Bundle>{{{0, 2}, 60}, {{2, 3}, 41}, {{3, 4}, 11}}));
}

TEST(Plan, WithoutSharingEverySampleIsABundle) {
    const auto plan =
        plan_minibatch(groups_of(2, 3, 10, 5),
                       {.chunk_tokens = 1000, .chunk_multiple = 1, .share_prompts = false});
    ASSERT_EQ(plan.bundles.size(), 6U);
    EXPECT_EQ(plan.bundles[4], (Bundle{{4, 5}, 15}));
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
