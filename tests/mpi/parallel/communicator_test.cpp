#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "parallel/agree.hpp"
#include "parallel/mesh.hpp"
#include "parallel/mpi_float_sum.hpp"
#include "parallel/self_communicator.hpp"
#include "src/base/error.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/unit/parallel/communicator_cases.hpp"

namespace rankwise::parallel {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kShortMessages = 1'000;

/// Every case as it is, with messages cut short, and with calls compared.
class EveryMpiCommunicator
    : public testing::TestWithParam<std::tuple<cases::Case, std::int64_t, bool>> {};

TEST_P(EveryMpiCommunicator, Passes) {
    const auto& [test, piece_bytes, checked] = GetParam();
    const auto world =
        rankwise::test::mpi_session().world({.check_collectives = checked}, piece_bytes);
    test.run(*world);
    world->barrier("end of test");
}

INSTANTIATE_TEST_SUITE_P(Mpi, EveryMpiCommunicator,
                         testing::Combine(testing::ValuesIn(cases::kAll),
                                          testing::Values(MpiSession::kPieceBytes, kShortMessages),
                                          testing::Bool()),
                         [](const auto& test_info) {
                             return std::string(std::get<0>(test_info.param).name) +
                                    (std::get<1>(test_info.param) == kShortMessages ? "_in_pieces"
                                                                                    : "") +
                                    (std::get<2>(test_info.param) ? "_checked" : "");
                         });

TEST(MpiSession, KnowsWhereItIs) {
    const MpiSession& session = rankwise::test::mpi_session();
    const auto world = rankwise::test::mpi_session().world({});
    EXPECT_EQ(world->rank(), session.rank());
    EXPECT_EQ(world->size(), session.size());
    EXPECT_EQ(world->name(), "world");
    EXPECT_FALSE(session.host().empty());
    EXPECT_GT(session.pid(), 0);
    EXPECT_EQ(session.identity(), fmt::format("rank {}/{} {}:{}", session.rank(), session.size(),
                                              session.host(), session.pid()));
}

TEST(MpiFloatSum, AddsForMeasuringWholeAndByBlocks) {
    const auto world = rankwise::test::mpi_session().world({});
    const auto ranks = static_cast<std::size_t>(world->size());
    std::vector<float> from(2 * ranks);
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i);
    std::vector<float> whole(from.size());
    std::vector<float> block(2);
    mpi_all_reduce(*world, from, whole);
    mpi_reduce_scatter(*world, from, block);
    for (std::size_t i = 0; i < from.size(); ++i)
        EXPECT_EQ(whole[i], static_cast<float>(ranks) * from[i]);
    const auto first = 2 * static_cast<std::size_t>(world->rank());
    EXPECT_EQ(block, (std::vector<float>{whole[first], whole[first + 1]}));
    std::vector<float> longer(3);
    EXPECT_THROW(mpi_reduce_scatter(*world, from, longer), InternalError);
}

TEST(MpiFloatSum, IsOfCommunicatorsOfMpiAlone) {
    const auto world = rankwise::test::mpi_session().world({});
    const auto self = make_self_communicator({});
    EXPECT_TRUE(is_mpi(*world));
    EXPECT_FALSE(is_mpi(*self));
    std::vector<float> one(1);
    EXPECT_THROW(mpi_all_reduce(*self, one, one), InternalError);
}

TEST(MpiCommunicator, RefusesAMessageOfAnotherSize) {
    const auto world = rankwise::test::mpi_session().world({});
    const std::vector<std::int64_t> two(2);
    std::vector<std::int64_t> three(3);
    std::vector<std::int64_t> one(1);
    auto sending = world->start_send("long", two, world->rank());
    EXPECT_THROW(world->receive("long", one, world->rank()), InternalError);
    sending.wait();
    auto again = world->start_send("short", two, world->rank());
    EXPECT_THROW(world->receive("short", three, world->rank()), InternalError);
    again.wait();
}

TEST(MpiCommunicator, TurnsAnErrorOfMpiIntoOneThatNamesTheCall) {
    const auto world = rankwise::test::mpi_session().world({});
    // Buffers that cannot be: the call fails on this rank before anything is sent.
    try {
        const auto* nowhere = static_cast<const std::int64_t*>(nullptr);
        world->send("weights:3", std::span(nowhere, 4), world->rank());
        FAIL() << "MPI took a null buffer";
    } catch (const EnvironmentError& error) {
        EXPECT_THAT(error.what(), HasSubstr("send 'weights:3' on communicator world"));
        EXPECT_THAT(error.what(), HasSubstr("MPI_ERR_BUFFER"));
    }
}

TEST(MpiCollectiveChecker, NamesTheRankThatDiffers) {
    const auto world = rankwise::test::mpi_session().world({.check_collectives = true});
    if (world->size() < 3) GTEST_SKIP() << "needs three ranks: with two, either may be the odd one";
    try {
        std::vector<std::int64_t> data(4);
        if (world->rank() == 1) {
            world->all_reduce_sum("norm", data);
        } else {
            world->broadcast("seed", data, 0);
        }
        FAIL();
    } catch (const InternalError& error) {
        EXPECT_THAT(error.what(), HasSubstr("rank 1: all_reduce 'norm'"));
    }
}

TEST(MpiMesh, GivesEachAxisItsRanks) {
    const auto world = rankwise::test::mpi_session().world({});
    const Mesh mesh(*world, {.data = world->size()});
    EXPECT_EQ(mesh.axis(Axis::data).size(), world->size());
    EXPECT_EQ(mesh.axis(Axis::data).rank(), world->rank());
    EXPECT_EQ(mesh.axis(Axis::tensor).size(), 1);
    EXPECT_EQ(mesh.axis(Axis::pipeline).size(), 1);
    EXPECT_EQ(mesh.axis(Axis::expert).size(), 1);
}

TEST(MpiAgree, MergesTheProblemsOfAllRanks) {
    const auto world = rankwise::test::mpi_session().world({});
    std::vector<Problem> problems{{ExitCode::bad_input, "no such file"}};
    if (world->rank() == world->size() - 1) problems.push_back({ExitCode::environment, "no disk"});
    const Agreement agreement = agree(*world, problems);
    EXPECT_EQ(agreement.code, ExitCode::bad_input);
    EXPECT_EQ(agreement.ranks_with_problems, world->size());
    if (world->rank() != 0) return;
    ASSERT_EQ(agreement.problems.size(), 2U);
    EXPECT_EQ(static_cast<int>(agreement.problems[0].ranks.size()), world->size());
    EXPECT_EQ(agreement.problems[1].ranks, std::vector<int>{world->size() - 1});
}

TEST(MpiStateExchange, BringsTheStatesOfAllRanksToRankZero) {
    MpiSession& session = rankwise::test::mpi_session();
    const auto world = session.world({});
    const auto exchange = session.state_exchange();
    RankState state;
    state.rank = session.rank();
    state.sequence = static_cast<std::uint64_t>(100 + session.rank());
    exchange->publish(state);
    if (session.rank() == 0) {
        std::vector<bool> seen(static_cast<std::size_t>(session.size()));
        for (int left = session.size(); left > 0; std::this_thread::yield()) {
            for (const RankState& arrived : exchange->collect()) {
                EXPECT_EQ(arrived.sequence, static_cast<std::uint64_t>(100 + arrived.rank));
                seen[static_cast<std::size_t>(arrived.rank)] = true;
                --left;
            }
        }
        EXPECT_THAT(seen, testing::Each(true));
    } else {
        EXPECT_TRUE(exchange->collect().empty());
    }
    world->barrier("end of test");
}

TEST(MpiWatchdog, TellsWhichRankLagsWhileTheOthersWaitInMpi) {
    MpiSession& session = rankwise::test::mpi_session();
    if (session.size() < 2) GTEST_SKIP() << "needs two ranks";
    const auto recorder = std::make_shared<FlightRecorder>();
    const auto world = session.world({.recorder = recorder});
    std::mutex mutex;
    std::string said;
    Watchdog watchdog({{session.rank(), recorder}}, {.timeout_s = 0.3,
                                                     .poll_s = 0.02,
                                                     .world_size = session.size(),
                                                     .identity = session.identity(),
                                                     .exchange = session.state_exchange(),
                                                     .report =
                                                         [&](const std::string& line) {
                                                             const std::lock_guard lock(mutex);
                                                             said += line + "\n";
                                                         },
                                                     .end_job = {}});
    recorder->set_phase("update", 7);
    watchdog.start();
    if (session.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(1200));
    world->barrier("end of step");
    watchdog.stop();
    EXPECT_THAT(said, HasSubstr(session.identity() + "] phase=update step=7: nothing has moved"));
    if (session.rank() != 1) {
        EXPECT_THAT(said, HasSubstr("barrier 'end of step' on world"));
    }
    if (session.rank() == 0) {
        EXPECT_THAT(said, HasSubstr("behind: rank 1 (0 communications begun"));
    }
    world->barrier("end of test");
}

}  // namespace
}  // namespace rankwise::parallel
