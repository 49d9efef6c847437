#include "parallel/deal.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "src/base/checked.hpp"
#include "src/base/error.hpp"
#include "src/base/philox.hpp"

namespace rankwise::parallel {
namespace {

std::vector<int> ranks_of(const std::vector<Dealt>& dealt) {
    std::vector<int> ranks;
    for (const Dealt& d : dealt) ranks.push_back(d.rank);
    return ranks;
}

TEST(Dealer, DealsLongestFirstAndTiesByPromptAndSample) {
    Dealer dealer({{2, 0, 10}, {1, 1, 10}, {1, 0, 10}, {0, 0, 99}}, 1);
    const std::vector<std::int64_t> free{4};
    const auto dealt = dealer.deal(free);
    ASSERT_EQ(dealt.size(), 4U);
    EXPECT_EQ(dealt[0].item, (WorkItem{0, 0, 99}));
    EXPECT_EQ(dealt[1].item, (WorkItem{1, 0, 10}));
    EXPECT_EQ(dealt[2].item, (WorkItem{1, 1, 10}));
    EXPECT_EQ(dealt[3].item, (WorkItem{2, 0, 10}));
    EXPECT_EQ(dealer.waiting(), 0);
    EXPECT_TRUE(dealer.deal(free).empty());
}

TEST(Dealer, LeavesFreeSlotsAsEvenAsCanBe) {
    std::vector<WorkItem> items;
    for (int i = 0; i < 5; ++i) items.push_back({i, 0, 1});
    Dealer dealer(items, 1);
    const auto dealt = dealer.deal(std::vector<std::int64_t>{1, 4, 3});
    std::vector<std::int64_t> left{1, 4, 3};
    for (const Dealt& d : dealt) --left[static_cast<std::size_t>(d.rank)];
    EXPECT_EQ(left, (std::vector<std::int64_t>{1, 1, 1}));
}

TEST(Dealer, FillsAllSlotsWhenMoreWaitAndNoneTwice) {
    std::vector<WorkItem> items;
    for (int i = 0; i < 20; ++i) items.push_back({i, 0, i});
    Dealer dealer(items, 1);
    const auto first = dealer.deal(std::vector<std::int64_t>{2, 0, 5});
    EXPECT_EQ(std::count_if(first.begin(), first.end(), [](const Dealt& d) { return d.rank == 0; }),
              2);
    EXPECT_EQ(std::count_if(first.begin(), first.end(), [](const Dealt& d) { return d.rank == 2; }),
              5);
    EXPECT_EQ(dealer.waiting(), 13);
    EXPECT_EQ(dealer.deal(std::vector<std::int64_t>{20, 0, 0}).size(), 13U);
}

TEST(Dealer, KeepsSamplesOfAPromptTogetherWhereThatCostsNoBalance) {
    std::vector<WorkItem> items;
    for (int p = 0; p < 2; ++p) {
        for (int s = 0; s < 4; ++s) items.push_back({p, s, 7});
    }
    Dealer dealer(items, 1);
    EXPECT_EQ(ranks_of(dealer.deal(std::vector<std::int64_t>{4, 4})),
              (std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1}));
}

TEST(Dealer, GivesAGroupOnlyToARankWithRoomForAllOfIt) {
    Dealer dealer({{0, 0, 5}, {1, 0, 5}, {2, 0, 5}}, 4);
    EXPECT_EQ(ranks_of(dealer.deal(std::vector<std::int64_t>{3, 7})), std::vector<int>{1});
    EXPECT_TRUE(dealer.deal(std::vector<std::int64_t>{3, 3}).empty());
    EXPECT_EQ(dealer.waiting(), 2);
}

TEST(Dealer, ComesToTheSameAnswerOnEveryRank) {
    std::vector<WorkItem> items;
    RandomSequence random(RandomStream(1, Purpose::data_order));
    for (int i = 0; i < 200; ++i)
        items.push_back({i / 4, i % 4, static_cast<std::int64_t>(random.below(50))});
    auto shuffled = items;
    random.shuffle(shuffled);
    Dealer one(items, 1);
    Dealer other(shuffled, 1);
    for (int round = 0; round < 30; ++round) {
        std::vector<std::int64_t> free;
        for (int r = 0; r < 5; ++r) free.push_back(static_cast<std::int64_t>(random.below(4)));
        EXPECT_EQ(one.deal(free), other.deal(free));
    }
}

TEST(Dealer, RefusesItemsWithoutWidth) {
    EXPECT_THROW(Dealer({}, 0), InternalError);
}

/// Generation as it is dealt: every `interval` decode steps free slots are gathered and items
/// dealt; each step every busy slot decodes a token. Returns the steps until all is done. An item
/// takes `width` slots, each free when its own sample is done; lengths[prompt * width + i] tokens.
std::int64_t simulate(Dealer dealer, const std::vector<std::int64_t>& lengths, int ranks,
                      std::int64_t slots, std::int64_t width, std::int64_t interval) {
    std::vector<std::vector<std::int64_t>> busy(static_cast<std::size_t>(ranks));  // tokens left
    std::int64_t steps = 0;
    const auto is_busy = [](const auto& rank) { return !rank.empty(); };
    while (dealer.waiting() > 0 || std::any_of(busy.begin(), busy.end(), is_busy)) {
        if (steps % interval == 0) {
            std::vector<std::int64_t> free;
            for (const auto& rank : busy)
                free.push_back(slots - static_cast<std::int64_t>(rank.size()));
            for (const Dealt& dealt : dealer.deal(free)) {
                for (std::int64_t i = 0; i < width; ++i) {
                    busy[static_cast<std::size_t>(dealt.rank)].push_back(
                        lengths[static_cast<std::size_t>(dealt.item.prompt * width +
                                                         dealt.item.sample + i)]);
                }
            }
            for (const auto& rank : busy) EXPECT_LE(static_cast<std::int64_t>(rank.size()), slots);
        }
        for (auto& rank : busy) {
            for (std::int64_t& left : rank) --left;
            std::erase(rank, 0);
        }
        ++steps;
    }
    return steps;
}

struct Load {
    int ranks;
    std::int64_t slots;
    std::int64_t interval;
};

class SkewedLengths : public testing::TestWithParam<Load> {
  protected:
    // One in ten is ten times longer.
    static std::int64_t skewed(RandomSequence& random) {
        const auto base = static_cast<std::int64_t>(20 + random.below(21));
        return random.below(10) == 0 ? 10 * base : base;
    }
    static std::int64_t bound(const std::vector<std::int64_t>& lengths, const Load& load) {
        const std::int64_t tokens =
            std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
        return std::max(*std::max_element(lengths.begin(), lengths.end()),
                        ceil_div(tokens, load.ranks * load.slots));
    }
};

TEST_P(SkewedLengths, OfSingleSamplesCostAtMostFifteenPercentOverTheBound) {
    const Load load = GetParam();
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        RandomSequence random(RandomStream(seed, Purpose::data_order));
        std::vector<std::int64_t> lengths;
        std::vector<WorkItem> items;
        const std::int64_t samples = 8;
        for (std::int64_t i = 0; i < load.ranks * load.slots * 8; ++i) {
            lengths.push_back(skewed(random));
            items.push_back({i / samples, i % samples, lengths.back()});
        }
        // In the simulation an item of width 1 names its length by its index alone.
        std::vector<WorkItem> indexed;
        for (std::size_t i = 0; i < items.size(); ++i) {
            indexed.push_back({static_cast<std::int64_t>(i), 0, items[i].expected_length});
        }
        const auto steps =
            simulate(Dealer(indexed, 1), lengths, load.ranks, load.slots, 1, load.interval);
        EXPECT_LE(static_cast<double>(steps), 1.15 * static_cast<double>(bound(lengths, load)))
            << "seed " << seed;
    }
}

TEST_P(SkewedLengths, OfWholeGroupsCostAtMostFifteenPercentOverTheBound) {
    const Load load = GetParam();
    const std::int64_t group = 4;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        RandomSequence random(RandomStream(seed, Purpose::data_order));
        std::vector<std::int64_t> lengths;
        std::vector<WorkItem> items;
        for (std::int64_t p = 0; p < load.ranks * load.slots / group * 8; ++p) {
            items.push_back({p, 0, skewed(random)});
            lengths.insert(lengths.end(), static_cast<std::size_t>(group),
                           items.back().expected_length);
        }
        const auto steps =
            simulate(Dealer(items, group), lengths, load.ranks, load.slots, group, load.interval);
        EXPECT_LE(static_cast<double>(steps), 1.15 * static_cast<double>(bound(lengths, load)))
            << "seed " << seed;
    }
}

INSTANTIATE_TEST_SUITE_P(Loads, SkewedLengths,
                         testing::Values(Load{2, 8, 1}, Load{4, 8, 1}, Load{2, 16, 4},
                                         Load{4, 16, 4}, Load{3, 8, 2}, Load{8, 8, 4}),
                         [](const auto& test_info) {
                             return std::to_string(test_info.param.ranks) + "_ranks_" +
                                    std::to_string(test_info.param.slots) + "_slots_every_" +
                                    std::to_string(test_info.param.interval);
                         });

}  // namespace
}  // namespace rankwise::parallel
