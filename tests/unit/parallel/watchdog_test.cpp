#include "parallel/watchdog.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "parallel/thread_world.hpp"

namespace rankwise::parallel {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class HandClock final : public Clock {
  public:
    [[nodiscard]] double now_s() const override { return now_.load(); }
    void set(double now_s) { now_ = now_s; }

  private:
    std::atomic<double> now_ = 0.0;
};

TEST(FlightRecorder, KeepsTheLatestCallsWithPhaseAndStep) {
    const auto clock = std::make_shared<HandClock>();
    FlightRecorder recorder(clock);
    for (int i = 1; i <= 100; ++i) {
        clock->set(i);
        recorder.set_phase("update", i);
        const auto ticket = recorder.begin(Op::all_gather, "data", "weights:3", 8, true);
        clock->set(i + 0.5);
        recorder.end(ticket);
    }
    const auto entries = recorder.entries();
    ASSERT_EQ(entries.size(), FlightRecorder::kRing);
    EXPECT_EQ(entries.front().sequence, 100 - FlightRecorder::kRing + 1);
    EXPECT_EQ(entries.back().sequence, 100U);
    EXPECT_EQ(entries.back().phase, "update");
    EXPECT_EQ(entries.back().step, 100);
    EXPECT_EQ(entries.back().begin_s, 100.0);
    EXPECT_EQ(entries.back().end_s, 100.5);
    EXPECT_EQ(recorder.state().last_change_s, 100.5);
}

TEST(FlightRecorder, DoesNotTakeTheEndOfAForgottenCallForThatOfALaterOne) {
    FlightRecorder recorder;
    const auto forgotten = recorder.begin(Op::send, "data", "x", 8, false);
    for (std::size_t i = 0; i + 1 < FlightRecorder::kRing; ++i) {
        recorder.end(recorder.begin(Op::barrier, "data", "y", 0, true));
    }
    recorder.begin(Op::barrier, "data", "in its place", 0, true);
    recorder.end(forgotten);
    ASSERT_THAT(recorder.state().open, SizeIs(1));
    EXPECT_EQ(recorder.state().open[0].label, "in its place");
}

TEST(FlightRecorder, DescribesWhatARankIsIn) {
    const auto clock = std::make_shared<HandClock>();
    FlightRecorder recorder(clock);
    EXPECT_EQ(describe(recorder.state()),
              "phase=start step=0: nothing has moved for 0.0 s; no communication yet");
    recorder.set_phase("generate", 12);
    const auto first = recorder.begin(Op::all_gather, "data", "weights:3", 3 << 20, false);
    clock->set(2.0);
    const auto second = recorder.begin(Op::barrier, "world", "end of step", 0, true);
    clock->set(62.0);
    EXPECT_EQ(describe(recorder.state()),
              "phase=generate step=12: nothing has moved for 60.0 s; not finished: "
              "all_gather 'weights:3' on data (#1, 3.0 MiB) started in background 62.0 s ago, "
              "barrier 'end of step' on world (#2, 0 bytes) begun 60.0 s ago");
    recorder.end(first);
    recorder.end(second);
    clock->set(72.0);
    EXPECT_EQ(describe(recorder.state()),
              "phase=generate step=12: nothing has moved for 10.0 s; in no communication, the last "
              "was barrier 'end of step' on world (#2, 0 bytes), finished 10.0 s ago");
}

TEST(FlightRecorder, SeesEveryCallOfACommunicator) {
    ThreadWorld world(2);
    world.run([](Communicator& comm) {
        std::vector<std::int64_t> both(2);
        const std::int64_t mine = comm.rank();
        auto request = comm.start_all_gather("weights:0", std::span(&mine, 1), both);
        EXPECT_THAT(comm.instruments().recorder->state().open, SizeIs(1));
        EXPECT_FALSE(comm.instruments().recorder->state().open[0].waiting);
        request.wait();
        EXPECT_THAT(comm.instruments().recorder->state().open, IsEmpty());
        comm.barrier("end");
        const auto entries = comm.instruments().recorder->entries();
        ASSERT_THAT(entries, SizeIs(2));
        EXPECT_EQ(entries[0].label, "weights:0");
        EXPECT_EQ(entries[0].bytes, 16);
        EXPECT_TRUE(entries[1].finished());
    });
}

struct Watch {
    std::shared_ptr<HandClock> clock = std::make_shared<HandClock>();
    std::vector<std::shared_ptr<FlightRecorder>> recorders;
    std::vector<std::string> lines;
    int ended = 0;
    std::unique_ptr<Watchdog> dog;

    explicit Watch(int ranks, double end_after_s = 0.0) {
        std::vector<Watchdog::Watched> watched;
        for (int r = 0; r < ranks; ++r) {
            recorders.push_back(std::make_shared<FlightRecorder>(clock));
            watched.push_back({r, recorders.back()});
        }
        dog = std::make_unique<Watchdog>(
            watched,
            Watchdog::Options{.timeout_s = 60.0,
                              .end_after_s = end_after_s,
                              .poll_s = 1.0,
                              .world_size = ranks,
                              .identity = "rank 5/16 node7:4711",
                              .clock = clock,
                              .exchange = nullptr,
                              .report = [this](const auto& line) { lines.push_back(line); },
                              .end_job = [this] { ++ended; }});
    }
    void poll_at(double now_s) {
        clock->set(now_s);
        dog->poll();
    }
};

TEST(Watchdog, ReportsOnceWhenNothingHasMovedForSoLong) {
    Watch watch(1);
    watch.recorders[0]->set_phase("update", 1203);
    watch.recorders[0]->begin(Op::all_to_all_v, "data", "gradients:7", 4096, true);
    watch.poll_at(59.9);
    EXPECT_THAT(watch.lines, IsEmpty());
    watch.poll_at(60.0);
    watch.poll_at(90.0);
    EXPECT_THAT(
        watch.lines,
        ElementsAre("[rank 5/16 node7:4711] phase=update step=1203: nothing has moved for "
                    "60.0 s; not finished: all_to_all_v 'gradients:7' on data (#1, 4.0 KiB) "
                    "begun 60.0 s ago"));
    EXPECT_EQ(watch.ended, 0);
}

TEST(Watchdog, IsQuietWhileALongComputationShowsThatItIsAlive) {
    Watch watch(1);
    for (double now = 0.0; now < 600.0; now += 30.0) {
        watch.poll_at(now);
        watch.recorders[0]->beat();
    }
    EXPECT_THAT(watch.lines, IsEmpty());
}

TEST(Watchdog, ReportsAgainAfterSomethingHasMoved) {
    Watch watch(1);
    watch.poll_at(60.0);
    watch.recorders[0]->beat();
    watch.poll_at(119.0);
    EXPECT_THAT(watch.lines, SizeIs(1));
    watch.poll_at(120.0);
    EXPECT_THAT(watch.lines, SizeIs(2));
}

TEST(Watchdog, EndsTheJobOnceIfNothingMovesAfterTheReport) {
    Watch watch(1, 30.0);
    watch.poll_at(60.0);
    watch.poll_at(89.0);
    EXPECT_EQ(watch.ended, 0);
    watch.poll_at(90.0);
    watch.poll_at(200.0);
    EXPECT_EQ(watch.ended, 1);
    EXPECT_THAT(watch.lines.back(), HasSubstr("ending the job"));
}

TEST(Watchdog, ARankThatWaitsGivesTheOthersFourTimesAsLong) {
    Watch watch(1, 30.0);
    watch.recorders[0]->begin(Op::barrier, "world", "end of step", 0, true);
    watch.poll_at(60.0);
    watch.poll_at(179.0);
    EXPECT_EQ(watch.ended, 0);
    watch.poll_at(180.0);
    EXPECT_EQ(watch.ended, 1);
}

TEST(Watchdog, SparesAJobThatMovesAgainAfterTheReport) {
    Watch watch(1, 30.0);
    watch.poll_at(60.0);
    watch.clock->set(80.0);
    watch.recorders[0]->beat();
    watch.poll_at(95.0);
    EXPECT_EQ(watch.ended, 0);
}

TEST(Watchdog, SaysWhichRankHoldsUpTheOthers) {
    Watch watch(3);
    for (int r = 0; r < 3; ++r) {
        auto& recorder = *watch.recorders[static_cast<std::size_t>(r)];
        recorder.end(recorder.begin(Op::broadcast, "world", "seed", 8, true));
        if (r != 1) recorder.begin(Op::barrier, "world", "end of step", 0, true);
    }
    watch.poll_at(60.0);
    EXPECT_THAT(watch.lines, SizeIs(3));
    watch.poll_at(66.0);
    ASSERT_THAT(watch.lines, SizeIs(4));
    EXPECT_THAT(watch.lines.back(), HasSubstr("behind: rank 1 (1 communications begun, in none "
                                              "now); ahead: ranks 0, 2 (2 begun)"));
    EXPECT_THAT(watch.lines.back(), HasSubstr("rank 1: phase=start"));
}

RankState state_of(int rank, std::uint64_t sequence, bool waiting) {
    RankState state;
    state.rank = rank;
    state.sequence = sequence;
    state.waiting = waiting;
    return state;
}

TEST(Lag, BlamesTheRankThatComputesAmongThoseEquallyFar) {
    EXPECT_THAT(
        describe_lag({state_of(0, 5, true), state_of(1, 5, false), state_of(2, 6, true)}, 3),
        HasSubstr("behind: rank 1 (5 communications begun, in none now); ahead: ranks 0, 2"));
}

TEST(Lag, BlamesTheRankThatComputesHoweverManyOthersHaveBegun) {
    // Ranks of a pipeline, or of other axes, have other numbers of communications.
    EXPECT_THAT(
        describe_lag({state_of(0, 3, true), state_of(1, 9, true), state_of(2, 8, false)}, 3),
        HasSubstr("behind: rank 2 (8 communications begun, in none now); waiting: ranks 0, 1"));
}

TEST(Lag, BlamesTheFewestWhereAllWait) {
    EXPECT_THAT(
        describe_lag({state_of(0, 3, true), state_of(1, 9, true), state_of(2, 9, true)}, 3),
        HasSubstr(
            "behind: rank 0 (3 communications begun, waiting in the last); ahead: ranks 1, 2"));
}

TEST(Lag, NamesRanksThatHaveNotReported) {
    EXPECT_THAT(describe_lag({state_of(0, 5, true), state_of(3, 5, true)}, 4),
                HasSubstr("no report from ranks 1, 2: still moving, or gone"));
}

TEST(Lag, SaysSoWhenAllWaitForEachOther) {
    EXPECT_THAT(describe_lag({state_of(0, 5, true), state_of(1, 5, true)}, 2),
                HasSubstr("all 2 ranks wait, each in its communication #5"));
    EXPECT_EQ(describe_lag({}, 2), "no rank has reported");
}

TEST(Watchdog, SeesARankOfAThreadWorldThatKeepsTheOthersWaiting) {
    ThreadWorld world(3);
    std::vector<Watchdog::Watched> watched;
    for (int r = 0; r < 3; ++r) watched.push_back({r, world.instruments(r).recorder});
    std::mutex mutex;
    std::string said;
    Watchdog dog(watched, {.timeout_s = 0.1,
                           .poll_s = 0.01,
                           .world_size = 3,
                           .identity = {},
                           .exchange = nullptr,
                           .report =
                               [&](const std::string& line) {
                                   const std::lock_guard lock(mutex);
                                   said += line + "\n";
                               },
                           .end_job = {}});
    dog.start();
    world.run([&](Communicator& comm) {
        comm.instruments().recorder->set_phase("generate", 3);
        if (comm.rank() == 2) {
            while (true) {
                const std::lock_guard lock(mutex);
                if (said.find("behind") != std::string::npos) break;
            }
        }
        comm.barrier("end of step");
    });
    dog.stop();
    EXPECT_THAT(said, HasSubstr("[rank 0/3] phase=generate step=3"));
    EXPECT_THAT(said, HasSubstr("barrier 'end of step' on world (#1, 0 bytes) begun"));
    EXPECT_THAT(
        said, HasSubstr("behind: rank 2 (0 communications begun, in none now); ahead: ranks 0, 1"));
    EXPECT_THAT(said, Not(HasSubstr("ending the job")));
}

}  // namespace
}  // namespace rankwise::parallel
