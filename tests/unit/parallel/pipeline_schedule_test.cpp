// Schedules as lists, gone through by a simulation without communication.
#include "parallel/pipeline_schedule.hpp"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "src/base/checked.hpp"

namespace rankwise::parallel {
namespace {

struct Case {
    Schedule schedule;
    int ranks;
    std::int64_t micro_batches;
    int virtual_stages;
};

std::string to_text(const Case& c) {
    return fmt::format("{}, {} ranks, {} micro-batches, {} virtual stages", name_of(c.schedule),
                       c.ranks, c.micro_batches, c.virtual_stages);
}

std::vector<Case> cases() {
    std::vector<Case> all;
    for (const int ranks : {1, 2, 3, 4, 8}) {
        for (const std::int64_t count : {0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 24}) {
            all.push_back({Schedule::one_forward_one_backward, ranks, count, 1});
            all.push_back({Schedule::zero_bubble, ranks, count, 1});
            for (const int virtual_stages : {1, 2, 4})
                all.push_back({Schedule::interleaved, ranks, count, virtual_stages});
        }
    }
    return all;
}

std::vector<std::vector<PipelineStep>> lists_of(const Case& c) {
    std::vector<std::vector<PipelineStep>> lists;
    for (int rank = 0; rank < c.ranks; ++rank)
        lists.push_back(
            pipeline_steps(c.schedule, c.ranks, rank, c.micro_batches, c.virtual_stages));
    return lists;
}

/// Units of time: a forward pass takes 1, a backward pass 2, each of its halves 1.
std::int64_t duration(StepKind kind) {
    return kind == StepKind::backward ? 2 : 1;
}

/// When each step of every rank ends, if every rank goes through its list and a step waits for what
/// it needs of others; nothing if some wait for ever.
struct Simulation {
    explicit Simulation(const Case& c) : lists(lists_of(c)), shape(c) {
        std::vector<std::size_t> next(lists.size(), 0);
        std::vector<std::int64_t> now(lists.size(), 0);
        for (bool moved = true; moved;) {
            moved = false;
            for (std::size_t rank = 0; rank < lists.size(); ++rank) {
                while (next[rank] < lists[rank].size()) {
                    const PipelineStep& step = lists[rank][next[rank]];
                    const auto ready = ready_at(static_cast<int>(rank), step);
                    if (!ready) break;
                    now[rank] = std::max(now[rank], *ready) + duration(step.kind);
                    ends[key(static_cast<int>(rank), step)] = now[rank];
                    end = std::max(end, now[rank]);
                    ++next[rank];
                    moved = true;
                }
            }
        }
        for (std::size_t rank = 0; rank < lists.size(); ++rank)
            finished = finished && next[rank] == lists[rank].size();
    }

    /// Share of the whole that the ranks idle.
    [[nodiscard]] double bubble() const {
        std::int64_t busy = 0;
        for (const auto& list : lists) {
            for (const PipelineStep& step : list) busy += duration(step.kind);
        }
        return 1.0 - static_cast<double>(busy) / static_cast<double>(end * std::ssize(lists));
    }

    std::vector<std::vector<PipelineStep>> lists;
    Case shape;
    std::int64_t end = 0;
    bool finished = true;

  private:
    using Key = std::tuple<int, std::int64_t, std::int64_t>;  // kind, stage of the model, batch
    [[nodiscard]] Key key(int rank, const PipelineStep& step) const {
        return {step.kind == StepKind::forward           ? 0
                : step.kind == StepKind::backward_weight ? 2
                                                         : 1,
                std::int64_t{step.virtual_stage} * shape.ranks + rank, step.micro_batch};
    }
    [[nodiscard]] std::optional<std::int64_t> ready_at(int rank, const PipelineStep& step) const {
        const auto [kind, stage, batch] = key(rank, step);
        const std::int64_t stages = std::int64_t{shape.ranks} * shape.virtual_stages;
        std::vector<Key> needs;
        if (kind == 0 && stage > 0) needs.push_back({0, stage - 1, batch});
        if (kind == 1) needs.push_back({0, stage, batch});
        if (kind == 1 && stage + 1 < stages) needs.push_back({1, stage + 1, batch});
        if (kind == 2) needs.push_back({1, stage, batch});
        std::int64_t ready = 0;
        for (const Key& need : needs) {
            const auto found = ends.find(need);
            if (found == ends.end()) return std::nullopt;
            ready = std::max(ready, found->second);
        }
        return ready;
    }

    std::map<Key, std::int64_t> ends;
};

TEST(PipelineSchedule, EveryStepComesAfterWhatItNeedsSoThatNoRankWaitsForEver) {
    for (const Case& c : cases()) EXPECT_TRUE(Simulation(c).finished) << to_text(c);
}

TEST(PipelineSchedule, EveryMicroBatchPassesEveryVirtualStageOnceInEachDirection) {
    for (const Case& c : cases()) {
        for (const auto& list : lists_of(c)) {
            std::map<StepKind, std::set<std::pair<std::int64_t, int>>> done;
            for (const PipelineStep& step : list)
                EXPECT_TRUE(done[step.kind].insert({step.micro_batch, step.virtual_stage}).second);
            const auto all = static_cast<std::size_t>(c.micro_batches * c.virtual_stages);
            const bool halves = c.schedule == Schedule::zero_bubble;
            EXPECT_EQ(done[StepKind::forward].size(), all) << to_text(c);
            EXPECT_EQ(done[StepKind::backward].size(), halves ? 0 : all) << to_text(c);
            EXPECT_EQ(done[StepKind::backward_input].size(), halves ? all : 0) << to_text(c);
            EXPECT_EQ(done[StepKind::backward_weight].size(), halves ? all : 0) << to_text(c);
        }
    }
}

TEST(PipelineSchedule, EachVirtualStageTakesMicroBatchesInAscendingOrder) {
    for (const Case& c : cases()) {
        for (const auto& list : lists_of(c)) {
            std::map<std::pair<StepKind, int>, std::int64_t> last;
            for (const PipelineStep& step : list) {
                const auto place = std::pair(step.kind, step.virtual_stage);
                const auto before = last.find(place);
                EXPECT_TRUE(before == last.end() || before->second < step.micro_batch)
                    << to_text(c);
                last[place] = step.micro_batch;
            }
        }
    }
}

/// A channel between neighbours is a queue: what is sent first is received first.
TEST(PipelineSchedule, NeighboursSendInTheOrderInWhichIsReceived) {
    for (const Case& c : cases()) {
        const auto lists = lists_of(c);
        for (int rank = 0; rank < c.ranks; ++rank) {
            const int next = (rank + 1) % c.ranks;
            const int wrap = rank + 1 == c.ranks ? 1 : 0;  // into the next virtual stage
            std::vector<std::pair<std::int64_t, int>> sent;
            std::vector<std::pair<std::int64_t, int>> received;
            for (const PipelineStep& step : lists[static_cast<std::size_t>(rank)]) {
                if (step.kind == StepKind::forward && step.virtual_stage + wrap < c.virtual_stages)
                    sent.emplace_back(step.micro_batch, step.virtual_stage + wrap);
            }
            for (const PipelineStep& step : lists[static_cast<std::size_t>(next)]) {
                if (step.kind == StepKind::forward && step.virtual_stage >= wrap)
                    received.emplace_back(step.micro_batch, step.virtual_stage);
            }
            EXPECT_EQ(sent, received) << to_text(c) << ", from rank " << rank;
        }
    }
}

TEST(PipelineSchedule, NoMoreIsInFlightThanStated) {
    for (const Case& c : cases()) {
        const auto lists = lists_of(c);
        for (int rank = 0; rank < c.ranks; ++rank) {
            std::int64_t most = std::min<std::int64_t>(c.ranks - rank, c.micro_batches);
            if (c.schedule == Schedule::zero_bubble)
                most = std::min<std::int64_t>(c.ranks, c.micro_batches);
            if (c.schedule == Schedule::interleaved) {
                most = std::min<std::int64_t>(
                    2 * (c.ranks - 1 - rank) + (c.virtual_stages - 1) * c.ranks + 1,
                    c.micro_batches * c.virtual_stages);
            }
            const std::int64_t found = most_in_flight(lists[static_cast<std::size_t>(rank)]);
            if (c.schedule == Schedule::interleaved && c.micro_batches % c.ranks != 0) {
                EXPECT_LE(found, most) << to_text(c) << ", rank " << rank;
            } else {
                EXPECT_EQ(found, most) << to_text(c) << ", rank " << rank;
            }
        }
    }
}

TEST(PipelineSchedule, TheBubbleIsThatOfTheFormula) {
    for (const Case& c : cases()) {
        if (c.micro_batches == 0) continue;
        const auto ranks = static_cast<double>(c.ranks);
        const auto count = static_cast<double>(c.micro_batches);
        double expected = (ranks - 1) / (count + ranks - 1);
        if (c.schedule == Schedule::zero_bubble) {
            if (c.micro_batches < c.ranks) continue;
            expected = (ranks - 1) / (3 * count + ranks - 1);
        }
        if (c.schedule == Schedule::interleaved) {
            if (c.micro_batches % c.ranks != 0) continue;
            expected = (ranks - 1) / (c.virtual_stages * count + ranks - 1);
        }
        EXPECT_NEAR(Simulation(c).bubble(), expected, 1e-12) << to_text(c);
    }
}

TEST(PipelineSchedule, SchedulesAreKnownByName) {
    for (const std::string& name : schedule_names()) EXPECT_EQ(name_of(schedule_of(name)), name);
    EXPECT_EQ(schedule_names().size(), 3U);
}

}  // namespace
}  // namespace rankwise::parallel
