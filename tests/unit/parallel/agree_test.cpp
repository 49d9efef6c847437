#include "parallel/agree.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "parallel/self_communicator.hpp"
#include "parallel/thread_world.hpp"

namespace rankwise::parallel {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Agree, FindsNothingWhenNobodyHasAProblem) {
    ThreadWorld world(3);
    world.run([](Communicator& comm) {
        const Agreement agreement = agree(comm, {});
        EXPECT_TRUE(agreement.ok());
        EXPECT_EQ(agreement.code, ExitCode::done);
        EXPECT_THAT(agreement.problems, IsEmpty());
    });
    // One small reduction, no more.
    EXPECT_EQ(world.instruments(0).traffic->rows().size(), 1U);
}

TEST(Agree, MergesEqualProblemsAndNamesTheRanksThatMetThem) {
    ThreadWorld world(5);
    world.run([](Communicator& comm) {
        std::vector<Problem> problems;
        if (comm.rank() == 4) problems.push_back({ExitCode::environment, "no space left"});
        if (comm.rank() >= 2) problems.push_back({ExitCode::bad_input, "no such file: a.jsonl"});
        if (comm.rank() == 3) problems.push_back({ExitCode::bad_input, "no such file: a.jsonl"});
        if (comm.rank() == 1) problems.push_back({ExitCode::environment, "no such file: a.jsonl"});
        const Agreement agreement = agree(comm, problems);
        EXPECT_FALSE(agreement.ok());
        EXPECT_EQ(agreement.ranks_with_problems, 4);
        // The first of the merged list is rank 1's.
        EXPECT_EQ(agreement.code, ExitCode::environment);
        if (comm.rank() != 0) {
            EXPECT_THAT(agreement.problems, IsEmpty());
            return;
        }
        ASSERT_EQ(agreement.problems.size(), 3U);
        EXPECT_EQ(agreement.problems[0].message, "no such file: a.jsonl");
        EXPECT_EQ(agreement.problems[0].code, ExitCode::environment);
        EXPECT_THAT(agreement.problems[0].ranks, ElementsAre(1));
        EXPECT_EQ(agreement.problems[1].code, ExitCode::bad_input);
        EXPECT_THAT(agreement.problems[1].ranks, ElementsAre(2, 3, 4));
        EXPECT_EQ(agreement.problems[2].message, "no space left");
        EXPECT_THAT(agreement.problems[2].ranks, ElementsAre(4));
    });
}

TEST(Agree, CarriesEmptyAndLongMessages) {
    const auto comm = make_self_communicator({});
    const std::vector<Problem> problems{{ExitCode::bad_input, ""},
                                        {ExitCode::internal, std::string(100'000, 'x')}};
    const Agreement agreement = agree(*comm, problems);
    ASSERT_EQ(agreement.problems.size(), 2U);
    EXPECT_EQ(agreement.problems[0].message, "");
    EXPECT_EQ(agreement.problems[1].message, problems[1].message);
}

TEST(AgreeSame, IsContentWhenAllAreEqual) {
    ThreadWorld world(4);
    world.run(
        [](Communicator& comm) { EXPECT_THAT(agree_same(comm, "recipe", "a b"), IsEmpty()); });
}

TEST(AgreeSame, NamesTheRanksThatDifferFromMost) {
    ThreadWorld world(5);
    world.run([](Communicator& comm) {
        const bool odd = comm.rank() == 0 || comm.rank() == 3;
        EXPECT_THAT(agree_same(comm, "recipe", odd ? "other" : "usual"), ElementsAre(0, 3));
    });
}

TEST(AgreeSame, TakesTheLowestRanksSideWhenAsManyDiffer) {
    ThreadWorld world(4);
    world.run([](Communicator& comm) {
        EXPECT_THAT(agree_same(comm, "recipe", comm.rank() % 2 == 0 ? "a" : "b"),
                    ElementsAre(1, 3));
    });
}

TEST(AgreeAny, IsTrueEverywhereIfItIsTrueAnywhere) {
    ThreadWorld world(4);
    world.run([](Communicator& comm) {
        EXPECT_TRUE(agree_any(comm, "stop", comm.rank() == 3));
        EXPECT_FALSE(agree_any(comm, "stop", false));
    });
}

TEST(RankList, IsWrittenAsRuns) {
    const auto text = [](std::vector<int> ranks, int size) { return to_string_ranks(ranks, size); };
    EXPECT_EQ(text({3}, 8), "rank 3");
    EXPECT_EQ(text({0, 1}, 8), "ranks 0, 1");
    EXPECT_EQ(text({0, 1, 2, 7}, 9), "ranks 0-2, 7");
    EXPECT_EQ(text({0, 1, 2}, 3), "all ranks");
    EXPECT_EQ(text({0}, 1), "rank 0");
}

}  // namespace
}  // namespace rankwise::parallel
