// Rows on their way to experts that are shared out over ranks.
#include "parallel/expert_dispatch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "src/base/error.hpp"

namespace rankwise::parallel {
namespace {

/// A row: who has its token, and which one it is of those that chose the expert there.
using SentRow = std::tuple<std::int64_t, int, std::int64_t>;  // expert, rank, number

struct DispatchCase {
    int ranks;
    int ranks_a_chunk;
    std::vector<std::int64_t> rows;  // [rank][expert]
    [[nodiscard]] std::int64_t experts() const { return std::ssize(rows) / ranks; }
    [[nodiscard]] std::int64_t count(int rank, std::int64_t expert) const {
        return rows[static_cast<std::size_t>(rank * experts() + expert)];
    }
    /// As a rank has them, sorted.
    [[nodiscard]] std::vector<SentRow> sorted(int rank) const {
        std::vector<SentRow> all;
        for (std::int64_t expert = 0; expert < experts(); ++expert) {
            for (std::int64_t i = 0; i < count(rank, expert); ++i) all.push_back({expert, rank, i});
        }
        return all;
    }
};

/// Empty experts and ranks, a hot expert, experts that do not divide by the ranks; nothing at all.
std::vector<DispatchCase> dispatch_cases() {
    return {{2, 1, {3, 0, 2, 0, 4, 1}},
            {3, 1, {0, 0, 0, 0, 0, 7, 0, 1, 0, 0, 2, 2, 2, 2, 2}},
            {4, 2, {1, 5, 0, 0, 2, 6, 0, 1, 0, 9, 0, 0, 3, 3, 3, 3}},
            {2, 2, {0, 0, 0, 0}},
            {3, 3, {1, 1, 1, 2, 2, 2, 0, 0, 4}}};
}

constexpr std::int64_t kRowsARound[] = {1, 2, 7, 100};

TEST(ExpertDispatch, EveryExpertHasOneHolderAndHoldersHaveAsManyOrOneMore) {
    for (const std::int64_t experts : {1, 5, 8}) {
        for (const int ranks : {1, 2, 3, 4}) {
            std::int64_t end = 0;
            for (int rank = 0; rank < ranks; ++rank) {
                const Range own = experts_of(experts, ranks, rank);
                EXPECT_EQ(own.begin, end);
                EXPECT_LE(own.size(), ceil_div(experts, std::int64_t{ranks}));
                for (std::int64_t expert = own.begin; expert < own.end; ++expert)
                    EXPECT_EQ(holder_of_expert(experts, ranks, expert), rank);
                end = own.end;
            }
            EXPECT_EQ(end, experts);
        }
    }
    EXPECT_THROW((void)holder_of_expert(4, 2, 4), InternalError);
}

TEST(ExpertDispatch, HoldersComputeAllRowsInTheOrderOfExpertsThenRanksThenTokensInBoundedRounds) {
    for (const DispatchCase& c : dispatch_cases()) {
        for (const std::int64_t most : kRowsARound) {
            std::vector<DispatchPlan> plans;
            for (int rank = 0; rank < c.ranks; ++rank)
                plans.emplace_back(c.rows, c.ranks, rank, c.ranks_a_chunk, most);
            for (int holder = 0; holder < c.ranks; ++holder) {
                std::vector<SentRow> computed;
                for (std::int64_t index = 0; index < plans[0].rounds(); ++index) {
                    std::vector<SentRow> received;
                    const DispatchPlan::Round mine =
                        plans[static_cast<std::size_t>(holder)].round(index);
                    for (int sender = 0; sender < c.ranks; ++sender) {
                        const DispatchPlan& theirs = plans[static_cast<std::size_t>(sender)];
                        const Range sent =
                            theirs.round(index).sent[static_cast<std::size_t>(holder)];
                        EXPECT_EQ(sent.size(), mine.received[static_cast<std::size_t>(sender)]);
                        const std::vector<SentRow> all = c.sorted(sender);
                        received.insert(received.end(), all.begin() + sent.begin,
                                        all.begin() + sent.end);
                    }
                    EXPECT_LE(std::ssize(mine.order), most);
                    ASSERT_EQ(mine.order.size(), received.size());
                    for (const std::int64_t place : mine.order)
                        computed.push_back(received[static_cast<std::size_t>(place)]);
                }
                std::vector<SentRow> expected;
                const Range own = experts_of(c.experts(), c.ranks, holder);
                for (std::int64_t expert = own.begin; expert < own.end; ++expert) {
                    for (int rank = 0; rank < c.ranks; ++rank) {
                        for (std::int64_t i = 0; i < c.count(rank, expert); ++i)
                            expected.push_back({expert, rank, i});
                    }
                }
                EXPECT_EQ(computed, expected) << "holder " << holder << ", rounds of " << most;
            }
        }
    }
}

TEST(ExpertDispatch, ASegmentHasTheRowsOfOneExpertAndChunkAndKnowsWhereItBeginsAndEnds) {
    for (const DispatchCase& c : dispatch_cases()) {
        for (const std::int64_t most : kRowsARound) {
            for (int holder = 0; holder < c.ranks; ++holder) {
                const DispatchPlan plan(c.rows, c.ranks, holder, c.ranks_a_chunk, most);
                std::map<std::pair<std::int64_t, int>, std::int64_t> rows;
                bool open = false;
                for (std::int64_t index = 0; index < plan.rounds(); ++index) {
                    std::int64_t end = 0;
                    for (const DispatchPlan::Segment& segment : plan.round(index).segments) {
                        EXPECT_EQ(segment.rows.begin, end);
                        end = segment.rows.end;
                        EXPECT_EQ(segment.begins, !open);
                        open = !segment.ends;
                        rows[{segment.expert, segment.chunk}] += segment.rows.size();
                        if (segment.ends) {
                            EXPECT_EQ((rows[{segment.expert, segment.chunk}]),
                                      plan.rows_of(segment.expert, segment.chunk));
                        }
                    }
                }
                EXPECT_FALSE(open);
            }
        }
    }
}

/// 64 ranks of which each has 40 rows, in chunks of two ranks: half of all rows want one expert of
/// 256, some ranks have nothing, most experts get nothing.
DispatchCase skewed_case() {
    DispatchCase c{64, 2, std::vector<std::int64_t>(std::size_t{64} * 256, 0)};
    for (std::size_t rank = 0; rank < 64; ++rank) {
        if (rank % 9 == 4) continue;
        const auto at = [&](std::size_t expert) -> std::int64_t& {
            return c.rows[rank * 256 + expert];
        };
        at(201) += 20;
        for (std::size_t i = 0; i < 20; ++i) ++at((rank * 7 + i * i * 3) % 96);
    }
    return c;
}

/// A round as it is defined: every row is listed.
DispatchPlan::Round listed_round(const DispatchCase& c, int rank, Range window) {
    const auto computed = [&](int holder) {
        std::vector<SentRow> rows;
        const Range own = experts_of(c.experts(), c.ranks, holder);
        for (std::int64_t expert = own.begin; expert < own.end; ++expert) {
            for (int sender = 0; sender < c.ranks; ++sender) {
                for (std::int64_t i = 0; i < c.count(sender, expert); ++i)
                    rows.push_back({expert, sender, i});
            }
        }
        return rows;
    };
    const auto in_window = [&](const std::vector<SentRow>& rows, int sender) {
        std::vector<std::int64_t> places;
        for (std::int64_t i = window.begin; i < std::min(window.end, std::ssize(rows)); ++i) {
            if (std::get<1>(rows[static_cast<std::size_t>(i)]) == sender) places.push_back(i);
        }
        return places;
    };
    DispatchPlan::Round round;
    std::int64_t sorted = 0;
    for (int holder = 0; holder < c.ranks; ++holder) {
        const std::vector<SentRow> rows = computed(holder);
        const auto mine = [&](std::int64_t end) {
            std::int64_t count = 0;
            for (std::int64_t i = 0; i < std::min(end, std::ssize(rows)); ++i)
                count += std::get<1>(rows[static_cast<std::size_t>(i)]) == rank ? 1 : 0;
            return count;
        };
        round.sent.push_back({sorted + mine(window.begin), sorted + mine(window.end)});
        sorted += mine(std::ssize(rows));
    }
    const std::vector<SentRow> rows = computed(rank);
    round.order.resize(static_cast<std::size_t>(
        std::max(std::int64_t{0}, std::min(window.end, std::ssize(rows)) - window.begin)));
    std::int64_t received = 0;
    for (int sender = 0; sender < c.ranks; ++sender) {
        const std::vector<std::int64_t> places = in_window(rows, sender);
        round.received.push_back(std::ssize(places));
        for (const std::int64_t place : places)
            round.order[static_cast<std::size_t>(place - window.begin)] = received++;
    }
    const auto segment_of = [&](std::int64_t row) {
        const auto& [expert, sender, i] = rows[static_cast<std::size_t>(row)];
        return std::pair(expert, sender / c.ranks_a_chunk);
    };
    for (std::int64_t i = window.begin; i < std::min(window.end, std::ssize(rows)); ++i) {
        const auto [expert, chunk] = segment_of(i);
        const std::int64_t at = i - window.begin;
        const bool first = i == 0 || segment_of(i - 1) != segment_of(i);
        if (first || at == 0) round.segments.push_back({expert, chunk, {at, at}, first, false});
        round.segments.back().rows.end = at + 1;
        round.segments.back().ends =
            i + 1 == std::ssize(rows) || segment_of(i + 1) != segment_of(i);
    }
    return round;
}

TEST(ExpertDispatch, RoundsOfManyRanksAndASkewedChoiceAreThoseOfAListOfAllRows) {
    const DispatchCase c = skewed_case();
    for (const std::int64_t most : {7, 64, 5000}) {
        for (const int rank : {0, 1, 4, 13, 50, 63}) {  // 4, 13: no rows; 50: the hot expert's
            const DispatchPlan plan(c.rows, c.ranks, rank, c.ranks_a_chunk, most);
            EXPECT_EQ(plan.rounds(), ceil_div(std::int64_t{57 * 20}, most));
            for (std::int64_t index = 0; index < plan.rounds(); index += 1 + plan.rounds() / 9) {
                const DispatchPlan::Round round = plan.round(index);
                const DispatchPlan::Round listed =
                    listed_round(c, rank, {index * most, (index + 1) * most});
                EXPECT_EQ(round.sent, listed.sent);
                EXPECT_EQ(round.received, listed.received);
                EXPECT_EQ(round.order, listed.order);
                EXPECT_EQ(round.segments, listed.segments);
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::parallel
