// Rows on their way to experts that are shared out over ranks.
#include "parallel/expert_dispatch.hpp"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace rankwise::parallel
