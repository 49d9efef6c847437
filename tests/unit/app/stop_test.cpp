#include "src/app/stop.hpp"

#include <gtest/gtest.h>

#include <csignal>

#include "parallel/thread_world.hpp"
#include "tests/support/hand_clock.hpp"

namespace rankwise::app {
namespace {

using test::HandClock;

class Stop : public testing::Test {
  protected:
    void SetUp() override { install_stop_signals(); }
    void TearDown() override { remove_stop_signals(); }
    std::shared_ptr<HandClock> clock_ = std::make_shared<HandClock>();
};

TEST_F(Stop, EachSignalIsAReasonOfItsOwn) {
    const StopConditions stop(0.0, clock_);
    EXPECT_EQ(stop.local(), StopReason::none);
    for (const auto& [signal, reason] : {std::pair{SIGUSR1, StopReason::usr1},
                                         {SIGINT, StopReason::interrupt},
                                         {SIGTERM, StopReason::terminate}}) {
        remove_stop_signals();
        install_stop_signals();
        std::raise(signal);
        EXPECT_EQ(stop.local(), reason);
    }
}

TEST_F(Stop, TimeLimitCountsFromTheBeginning) {
    clock_->now = 50.0;
    const StopConditions stop(10.0, clock_);
    EXPECT_EQ(stop.seconds_left(), 10.0);
    clock_->now = 59.9;
    EXPECT_EQ(stop.local(), StopReason::none);
    clock_->now = 60.0;
    EXPECT_EQ(stop.local(), StopReason::time_limit);
}

TEST_F(Stop, WithoutALimitTimeNeverEnds) {
    const StopConditions stop(0.0, clock_);
    clock_->now = 1e12;
    EXPECT_EQ(stop.local(), StopReason::none);
}

TEST_F(Stop, AllRanksAgreeOnTheLargestReasonOfAny) {
    parallel::ThreadWorld world(3);
    world.run([&](parallel::Communicator& ranks) {
        // Only rank 1 is out of time.
        const StopConditions stop(ranks.rank() == 1 ? 1.0 : 100.0, clock_);
        EXPECT_EQ(stop.agreed(ranks), StopReason::none);
        ranks.barrier("test");
        if (ranks.rank() == 0) clock_->now += 2.0;
        ranks.barrier("test");
        EXPECT_EQ(stop.agreed(ranks), StopReason::time_limit);
    });
}

using StopDeath = Stop;
TEST_F(StopDeath, SecondInterruptWithinTwoSecondsEndsTheProcessAtOnce) {
    EXPECT_EXIT(
        {
            std::raise(SIGINT);
            std::raise(SIGINT);
        },
        testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace rankwise::app
