#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "parallel/self_communicator.hpp"
#include "parallel/thread_world.hpp"
#include "src/base/error.hpp"
#include "tests/unit/parallel/communicator_cases.hpp"

namespace rankwise::parallel {
namespace {

using testing::HasSubstr;

class EveryThreadCommunicator : public testing::TestWithParam<std::tuple<cases::Case, int, bool>> {
};

TEST_P(EveryThreadCommunicator, Passes) {
    const auto& [test, ranks, checked] = GetParam();
    ThreadWorld world(ranks, {.check_collectives = checked});
    world.run(test.run);
}

INSTANTIATE_TEST_SUITE_P(Threads, EveryThreadCommunicator,
                         testing::Combine(testing::ValuesIn(cases::kAll), testing::Range(1, 9),
                                          testing::Bool()),
                         [](const auto& test_info) {
                             return std::string(std::get<0>(test_info.param).name) + "_on_" +
                                    std::to_string(std::get<1>(test_info.param)) + "_ranks" +
                                    (std::get<2>(test_info.param) ? "_checked" : "");
                         });

TEST(SelfCommunicator, DoesWhatOthersDo) {
    for (const cases::Case& test : cases::kAll) {
        SCOPED_TRACE(test.name);
        const auto comm = make_self_communicator({});
        test.run(*comm);
    }
}

/// The message of what `world.run(body)` throws; "" if it throws nothing.
template <class Exception>
std::string thrown_by(ThreadWorld& world, const std::function<void(Communicator&)>& body) {
    try {
        world.run(body);
    } catch (const Exception& error) {
        return error.what();
    }
    return "";
}

TEST(ThreadWorld, RethrowsTheFirstCauseAndReleasesThoseThatWait) {
    ThreadWorld world(4);
    std::atomic<int> released = 0;
    const auto message = thrown_by<BadNumbers>(world, [&](Communicator& comm) {
        if (comm.rank() == 2) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            throw BadNumbers("the loss is not finite");
        }
        try {
            comm.barrier("test");
        } catch (const RankReleased& error) {
            ++released;
            EXPECT_THAT(error.what(), HasSubstr("another rank has failed"));
            throw InternalError("a later error of a rank that was released");
        }
    });
    EXPECT_EQ(message, "the loss is not finite");
    EXPECT_EQ(released, 3);
}

TEST(ThreadWorld, ReleasesARankThatWaitsForAMessage) {
    ThreadWorld world(2);
    EXPECT_EQ(thrown_by<BadInput>(world,
                                  [](Communicator& comm) {
                                      std::int64_t number = 0;
                                      if (comm.rank() == 0) throw BadInput("no");
                                      comm.receive("test", std::span(&number, 1), 0);
                                  }),
              "no");
}

TEST(ThreadWorld, NamesARankThatReturnsWithoutTakingPart) {
    ThreadWorld world(3);
    const auto message = thrown_by<InternalError>(world, [](Communicator& comm) {
        if (comm.rank() != 1) comm.barrier("end of step");
    });
    EXPECT_THAT(message, HasSubstr("'end of step'"));
    EXPECT_THAT(message, HasSubstr("waits for rank 1, which has returned"));
}

TEST(ThreadWorld, RunsAgainAfterAFailure) {
    ThreadWorld world(2);
    EXPECT_THROW(world.run([](Communicator&) { throw BadInput("no"); }), BadInput);
    std::atomic<int> passed = 0;
    world.run([&](Communicator& comm) {
        comm.barrier("test");
        ++passed;
    });
    EXPECT_EQ(passed, 2);
}

TEST(ThreadWorld, RefusesAWorldWithoutRanks) {
    EXPECT_THROW(ThreadWorld(0), InternalError);
}

TEST(SelfCommunicator, RefusesToWaitForAMessageThatItHasNotSent) {
    const auto comm = make_self_communicator({});
    std::int64_t number = 0;
    EXPECT_THROW(comm->receive("test", std::span(&number, 1), 0), InternalError);
}

TEST(SelfCommunicator, TestsARequestWithoutBlocking) {
    const auto comm = make_self_communicator({});
    std::int64_t number = 0;
    auto request = comm->start_receive("test", std::span(&number, 1), 0);
    EXPECT_FALSE(request.test());
    const std::int64_t sent = 5;
    comm->send("test", std::span(&sent, 1), 0);
    EXPECT_TRUE(request.test());
    EXPECT_EQ(number, 5);
}

TEST(Communicator, RefusesSizesThatDoNotFitEachOther) {
    const auto comm = make_self_communicator({});
    std::vector<std::int64_t> two(2);
    std::vector<std::int64_t> three(3);
    const std::vector<std::int64_t> counts{2};
    const std::vector<std::int64_t> negative{-1};
    EXPECT_THROW(comm->all_gather("x", two, three), InternalError);
    EXPECT_THROW((void)comm->start_all_gather("x", two, three), InternalError);
    EXPECT_THROW(comm->all_gather_v("x", two, three, counts), InternalError);
    EXPECT_THROW(comm->all_gather_v("x", two, two, three), InternalError);
    EXPECT_THROW(comm->all_gather_v("x", two, two, negative), InternalError);
    EXPECT_THROW(comm->all_to_all("x", two, three), InternalError);
    EXPECT_THROW(comm->all_to_all_v("x", two, counts, three, counts), InternalError);
    EXPECT_THROW(comm->gather_v("x", two, three, counts, 0), InternalError);
    EXPECT_THROW(comm->broadcast("x", two, 1), InternalError);
    EXPECT_THROW(comm->send("x", two, -1), InternalError);
    EXPECT_THROW(comm->receive("x", two, 1), InternalError);
    try {
        comm->all_gather("weights:3", two, three);
        FAIL();
    } catch (const InternalError& error) {
        EXPECT_THAT(error.what(), HasSubstr("all_gather 'weights:3' on communicator world"));
    }
}

TEST(Communicator, NamesThePeerWhoseMessageHasAnotherSize) {
    ThreadWorld world(2);
    const auto message = thrown_by<InternalError>(world, [](Communicator& comm) {
        std::vector<std::int64_t> data(comm.rank() == 0 ? 2 : 3);
        if (comm.rank() == 0) comm.send("x", data, 1);
        if (comm.rank() == 1) comm.receive("x", data, 0);
    });
    EXPECT_THAT(message, HasSubstr("expects 24 bytes from rank 0, which sent 16"));
}

TEST(Communicator, WaitsForAnUnfinishedRequestBeforeItsBuffersGo) {
    ThreadWorld world(2);
    world.run([](Communicator& comm) {
        std::int64_t number = 0;
        const std::int64_t sent = 9;
        if (comm.rank() == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
            comm.send("x", std::span(&sent, 1), 1);
        } else {
            { const auto request = comm.start_receive("x", std::span(&number, 1), 0); }
            EXPECT_EQ(number, 9);
        }
    });
}

struct Mistake {
    const char* name;
    void (*run)(Communicator&);
    const char* said;
};

class CollectiveChecker : public testing::TestWithParam<Mistake> {};

TEST_P(CollectiveChecker, NamesTheRankThatDiffers) {
    ThreadWorld world(4, {.check_collectives = true});
    const auto message = thrown_by<InternalError>(world, GetParam().run);
    EXPECT_THAT(message, HasSubstr("do not make the same call"));
    EXPECT_THAT(message, HasSubstr("rank 2: "));
    EXPECT_THAT(message, HasSubstr(GetParam().said));
    EXPECT_THAT(message, HasSubstr("but ranks 0, 1, 3: "));
}

constexpr Mistake kMistakes[] = {
    {"another_operation",
     [](Communicator& comm) {
         std::vector<std::int64_t> data(4);
         if (comm.rank() == 2) {
             comm.all_reduce_sum("norm", data);
         } else {
             comm.broadcast("seed", data, 0);
         }
     },
     "all_reduce 'norm' (collective #1, sum"},
    {"another_label",
     [](Communicator& comm) { comm.barrier(comm.rank() == 2 ? "step 4" : "step 3"); },
     "barrier 'step 4'"},
    {"another_root",
     [](Communicator& comm) {
         std::vector<std::int64_t> data(4);
         comm.broadcast("seed", data, comm.rank() == 2 ? 1 : 0);
     },
     "root 1"},
    {"another_size",
     [](Communicator& comm) {
         std::vector<std::int64_t> data(comm.rank() == 2 ? 5 : 4);
         comm.broadcast("seed", data, 0);
     },
     "40 bytes"},
    {"another_element",
     [](Communicator& comm) {
         std::vector<std::int64_t> wide(2);
         std::vector<std::int32_t> narrow(4);
         if (comm.rank() == 2) {
             comm.broadcast("seed", narrow, 0);
         } else {
             comm.broadcast("seed", wide, 0);
         }
     },
     "elements of 4 bytes"},
    {"another_reduction",
     [](Communicator& comm) {
         std::vector<std::int64_t> data(4);
         if (comm.rank() == 2) {
             comm.all_reduce_max("norm", data);
         } else {
             comm.all_reduce_sum("norm", data);
         }
     },
     "max"},
    {"other_counts",
     [](Communicator& comm) {
         std::vector<std::int64_t> counts{1, 1, 1, 1};
         if (comm.rank() == 2) counts[3] = 2;
         const std::int64_t mine = 0;
         std::vector<std::int64_t> all(comm.rank() == 2 ? 5 : 4);
         comm.all_gather_v("norm", std::span(&mine, 1), all, counts);
     },
     "counts with hash"},
    {"one_call_more",
     [](Communicator& comm) {
         const std::int64_t mine = 0;
         std::vector<std::int64_t> all(4);
         if (comm.rank() == 2) comm.barrier("extra");
         comm.all_gather("norm", std::span(&mine, 1), all);
     },
     "barrier 'extra'"},
};

INSTANTIATE_TEST_SUITE_P(Threads, CollectiveChecker, testing::ValuesIn(kMistakes),
                         [](const auto& test_info) { return test_info.param.name; });

TEST(CollectiveCheckerOfBlocks, NamesTheRankThatSendsAnotherCount) {
    ThreadWorld world(3, {.check_collectives = true});
    const auto message = thrown_by<InternalError>(world, [](Communicator& comm) {
        std::vector<std::int64_t> send_counts{1, 1, 1};
        const std::vector<std::int64_t> recv_counts{1, 1, 1};
        if (comm.rank() == 2) send_counts[0] = 3;
        std::vector<std::int64_t> send(comm.rank() == 2 ? 5 : 3);
        std::vector<std::int64_t> recv(3);
        comm.all_to_all_v("gradients", send, send_counts, recv, recv_counts);
    });
    EXPECT_THAT(message, HasSubstr("rank 2 sends 24 bytes to rank 0, which expects 8"));
}

TEST(Traffic, CountsWhatGoesToOthersByCommunicatorOperationAndKind) {
    ThreadWorld world(4);
    world.run([](Communicator& comm) {
        const std::vector<std::int64_t> mine(10);
        std::vector<std::int64_t> all(40);
        std::vector<std::int64_t> other(40);
        std::vector<std::int64_t> ten(10);
        comm.all_gather("weights:layer 0", mine, all);
        comm.all_gather("weights:layer 1", mine, all);
        comm.all_to_all("gradients", all, other);
        comm.broadcast("seed", all, 3);
        const auto pair = comm.split(comm.rank() / 2, comm.rank(), "pair");
        pair->send_receive("x", mine, pair->rank(), ten, pair->rank());
        pair->send_receive("x", mine, 1 - pair->rank(), ten, 1 - pair->rank());
        (void)comm.all_reduce_sum("norm", std::int64_t{1});
    });
    const auto rows = world.instruments(0).traffic->rows();
    const std::vector<Traffic::Row> expected{
        {"pair", Op::send_receive, "x", 2, 80},
        {"world", Op::broadcast, "seed", 1, 0},
        {"world", Op::all_gather, "weights", 2, 2 * 3 * 80},
        {"world", Op::all_to_all, "gradients", 1, 3 * 80},
        {"world", Op::all_reduce, "norm", 1, 3 * 8},
        {"world", Op::split, "pair", 1, 0},
    };
    EXPECT_EQ(rows, expected) << table(rows);
    EXPECT_EQ(world.instruments(3).traffic->bytes() - world.instruments(0).traffic->bytes(),
              3 * 40 * 8);
    const std::string text = table(rows);
    EXPECT_THAT(text,
                HasSubstr("world         all_gather    weights             2               480\n"));
    EXPECT_THAT(text, HasSubstr("total"));
    world.instruments(0).traffic->reset();
    EXPECT_TRUE(world.instruments(0).traffic->rows().empty());
}

}  // namespace
}  // namespace rankwise::parallel
