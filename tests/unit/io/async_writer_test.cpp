#include "io/async_writer.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "src/base/error.hpp"

namespace rankwise::io {
namespace {

TEST(AsyncWriter, RunsJobsOneAfterTheOtherBesideTheCaller) {
    std::promise<void> gate;
    std::atomic<int> done = 0;
    AsyncWriter writer;
    writer.start([&, open = gate.get_future().share()] {
        open.wait();
        ++done;
    });
    EXPECT_TRUE(writer.busy());
    EXPECT_EQ(done, 0);
    gate.set_value();
    writer.start([&] { done = done * 10 + 1; });
    writer.join();
    EXPECT_EQ(done, 11);
    EXPECT_FALSE(writer.busy());
}

TEST(AsyncWriter, ReportsAFailureOnceAtTheNextJoinOrStart) {
    AsyncWriter writer;
    writer.start([] { throw EnvironmentError("disk full"); });
    EXPECT_THROW(writer.join(), EnvironmentError);
    writer.join();
    writer.start([] { throw EnvironmentError("disk full"); });
    bool ran = false;
    EXPECT_THROW(writer.start([&] { ran = true; }), EnvironmentError);
    writer.start([&] { ran = true; });
    writer.join();
    EXPECT_TRUE(ran);
}

TEST(AsyncWriter, FinishesItsJobBeforeItGoes) {
    bool ran = false;
    {
        AsyncWriter().start([&] { ran = true; });
    }
    EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace rankwise::io
