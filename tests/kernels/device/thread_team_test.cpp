#include "kernels/cpu/thread_team.hpp"

#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "src/base/error.hpp"

namespace rankwise::test {
namespace {

using kernels::cpu::ThreadTeam;

class ThreadTeamTest : public testing::TestWithParam<int> {
  protected:
    ThreadTeam team{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadTeamTest, testing::Values(1, 2, 4),
                         testing::PrintToStringParamName());

TEST_P(ThreadTeamTest, EachTaskRunsOnceInEachOfManyLoops) {
    EXPECT_EQ(team.threads(), GetParam());
    for (int loop = 0; loop < 3000; ++loop) {
        const std::int64_t tasks = loop % 7;
        std::vector<int> runs(static_cast<std::size_t>(tasks), 0);
        team.run(tasks, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
        ASSERT_EQ(runs, std::vector<int>(static_cast<std::size_t>(tasks), 1)) << "loop " << loop;
    }
}

TEST_P(ThreadTeamTest, AThreadThatFellAsleepWakesForTheNextLoop) {
    for (int loop = 0; loop < 5; ++loop) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        std::atomic<int> sum{0};
        team.run(100, [&](std::int64_t i) { sum += static_cast<int>(i); });
        EXPECT_EQ(sum, 4950);
    }
}

TEST_P(ThreadTeamTest, ThreadsWithoutWorkLeaveTheirCores) {
    const auto cpu_s = [] {
        timespec time{};
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
        return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    };
    team.run(64, [](std::int64_t) {});
    const double before = cpu_s();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    EXPECT_LT(cpu_s() - before, 0.25);  // one that does not would take 0.5
}

TEST_P(ThreadTeamTest, AllThreadsTakePart) {
    std::mutex mutex;
    std::set<std::thread::id> seen;
    // Each task waits until all threads have come, so one thread cannot do two of them.
    std::atomic<int> come{0};
    team.run(GetParam(), [&](std::int64_t) {
        ++come;
        while (come < GetParam()) std::this_thread::yield();
        const std::lock_guard lock(mutex);
        seen.insert(std::this_thread::get_id());
    });
    EXPECT_EQ(std::ssize(seen), GetParam());
}

TEST_P(ThreadTeamTest, TheFirstExceptionOfATaskComesOutAndTheTeamGoesOn) {
    std::atomic<int> runs{0};
    EXPECT_THROW(team.run(20,
                          [&](std::int64_t i) {
                              ++runs;
                              if (i == 19) throw std::out_of_range("task 19");
                          }),
                 std::out_of_range);
    EXPECT_EQ(runs, 20);
    team.run(5, [&](std::int64_t) { ++runs; });
    EXPECT_EQ(runs, 25);
}

TEST_P(ThreadTeamTest, ALoopInsideATaskIsOfThatTasksThreadAlone) {
    std::atomic<int> runs{0};
    std::atomic<int> elsewhere{0};
    team.run(8, [&](std::int64_t) {
        EXPECT_EQ(team.threads(), 1);
        const std::thread::id here = std::this_thread::get_id();
        team.run(5, [&](std::int64_t) {
            ++runs;
            if (std::this_thread::get_id() != here) ++elsewhere;
        });
    });
    EXPECT_EQ(runs, 40);
    EXPECT_EQ(elsewhere, 0);
    EXPECT_EQ(team.threads(), GetParam());
}

// Operands that the compiler cannot fold.
float halve(float value) {
    volatile float x = value;
    volatile float half = 0.5F;
    return x * half;
}

TEST_P(ThreadTeamTest, DenormalsAreFlushedOnEveryThreadDuringALoopAndNotAfterIt) {
    const float smallest = std::numeric_limits<float>::min();
    const float denormal = std::numeric_limits<float>::denorm_min();
    const unsigned before = _mm_getcsr();
    std::atomic<int> come{0};
    std::atomic<int> flushed_results{0};
    std::atomic<int> flushed_operands{0};
    team.run(GetParam(), [&](std::int64_t) {
        ++come;
        while (come < GetParam()) std::this_thread::yield();
        if (halve(smallest) == 0.0F) ++flushed_results;
        volatile float operand = denormal;
        volatile float large = 0x1p100F;
        if (operand * large == 0.0F) ++flushed_operands;
    });
    EXPECT_EQ(flushed_results, GetParam());
    EXPECT_EQ(flushed_operands, GetParam());
    EXPECT_EQ(halve(smallest), smallest * 0.5F);
    EXPECT_NE(halve(smallest), 0.0F);
    constexpr unsigned kModes = 0xFFC0;  // without the flags of what has happened
    EXPECT_EQ(_mm_getcsr() & kModes, before & kModes);
}

TEST(ThreadTeamSizeTest, ATeamWithoutThreadsIsRefused) {
    EXPECT_THROW(ThreadTeam{0}, InternalError);
}

}  // namespace
}  // namespace rankwise::test
