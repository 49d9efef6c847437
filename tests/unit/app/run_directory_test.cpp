#include "src/app/run_directory.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "parallel/self_communicator.hpp"
#include "parallel/thread_world.hpp"
#include "src/app/session.hpp"
#include "src/base/numerics_version.hpp"
#include "tests/unit/app/small_checkpoint.hpp"

namespace rankwise::app {
namespace {

using testing::HasSubstr;

class RunDirectoryTest : public testing::Test {
  protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        root_ = std::filesystem::temp_directory_path() /
                fmt::format("rankwise_run_{}_{}", test->name(), ::getpid());
        std::filesystem::remove_all(root_);
    }
    void TearDown() override { std::filesystem::remove_all(root_); }

    /// One rank's recipe with a seed.
    static Recipe recipe(std::int64_t seed = 1) {
        Recipe recipe(fmt::format("[run]\nseed = {}\n", seed), "x.ini");
        static RunOptions options;
        options = {};
        recipe.bind("run", options.options());
        recipe.finish();
        return recipe;
    }
    void save(std::int64_t step, const Recipe& of, std::int64_t numerics = kNumericsVersion) {
        test::SmallCheckpoint checkpoint;
        checkpoint.step = step;
        checkpoint.options = of.resolved_text();
        checkpoint.options_digest = of.digest_options();
        checkpoint.numerics_version = numerics;
        checkpoint.write(*fs_, root_ / "checkpoints");
    }
    std::string refused(const std::function<void(Session&)>& body, ExitCode code) {
        Session session(*self_, nullptr);
        try {
            body(session);
        } catch (const StartRefused& error) {
            EXPECT_EQ(error.code(), code);
            return error.merged();
        }
        return "not refused";
    }

    std::filesystem::path root_;
    std::unique_ptr<io::FileSystem> fs_ = io::posix_file_system();
    std::unique_ptr<parallel::Communicator> self_ = parallel::make_self_communicator({});
    Session session_{*self_, nullptr};
};

TEST_F(RunDirectoryTest, HasTheFilesThatARunHas) {
    RunDirectory directory(*fs_, root_, session_);
    directory.write_recipe(recipe(7), session_);
    EXPECT_TRUE(std::filesystem::is_directory(root_ / "checkpoints"));
    EXPECT_TRUE(std::filesystem::is_directory(root_ / "rollouts"));
    EXPECT_EQ(directory.paths().log(5), root_ / "logs" / "rank_00005.log");
    directory.open_log(5, "info").info("hello");
    EXPECT_TRUE(std::filesystem::exists(root_ / "logs" / "rank_00005.log"));
    const Recipe again = Recipe::read(root_ / "recipe.ini");
    EXPECT_TRUE(again.has("run"));
    EXPECT_EQ(default_directory("configs/tiny.ini"), io::Path("runs/tiny"));
}

TEST_F(RunDirectoryTest, IsRefusedWhileALiveRunHasItAndFreeAfterThatRunDied) {
    // Another process, since a process may lock its own file again.
    std::filesystem::create_directories(root_);
    int ready[2];
    int end[2];
    ASSERT_EQ(pipe(ready), 0);
    ASSERT_EQ(pipe(end), 0);
    const pid_t child = fork();
    if (child == 0) {
        const auto lock = fs_->lock(root_ / "run.lock");
        char byte = 'x';
        (void)!write(ready[1], &byte, 1);
        close(end[1]);
        (void)!read(end[0], &byte, 1);
        _exit(0);
    }
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    const std::string message =
        refused([&](Session& session) { RunDirectory directory(*fs_, root_, session); },
                ExitCode::environment);
    EXPECT_THAT(message, HasSubstr(fmt::format("{}", child)));
    EXPECT_THAT(message, HasSubstr("run.lock"));
    close(end[1]);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    RunDirectory directory(*fs_, root_, session_);
}

TEST_F(RunDirectoryTest, PathThatCannotBeMadeIsRefusedOnEveryRank) {
    std::ofstream(root_) << "a file where a directory should be";
    parallel::ThreadWorld world(3);
    std::atomic<int> refusals = 0;
    world.run([&](parallel::Communicator& ranks) {
        Session session(ranks, nullptr);
        try {
            RunDirectory directory(*fs_, root_, session);
        } catch (const StartRefused& error) {
            ++refusals;
            EXPECT_EQ(error.code(), ExitCode::environment);
            EXPECT_EQ(error.merged().empty(), ranks.rank() != 0);
        }
    });
    EXPECT_EQ(refusals, 3);
}

TEST_F(RunDirectoryTest, GoesOnFromTheNewestWholeCheckpointOnEveryRank) {
    std::filesystem::create_directories(root_ / "checkpoints");
    save(10, recipe());
    save(20, recipe());
    save(30, recipe());
    std::filesystem::resize_file(root_ / "checkpoints/step_00000030/manifest.h5", 700);
    parallel::ThreadWorld world(2);
    const Recipe same = recipe();
    world.run([&](parallel::Communicator& ranks) {
        Session session(ranks, nullptr);
        RunDirectory directory(*fs_, root_, session);
        const ResumePoint point = directory.find_resume(same, {}, session);
        EXPECT_EQ(point.checkpoint, root_ / "checkpoints/step_00000020");
        if (ranks.rank() == 0) {
            ASSERT_EQ(point.notes.size(), 1U);
            EXPECT_THAT(point.notes[0], HasSubstr("step_00000030"));
        }
    });
}

TEST_F(RunDirectoryTest, EmptyDirectoryBeginsAtTheStart) {
    RunDirectory directory(*fs_, root_, session_);
    EXPECT_FALSE(directory.find_resume(recipe(), {}, session_).checkpoint.has_value());
}

TEST_F(RunDirectoryTest, OneMayAskForAnEarlierStep) {
    std::filesystem::create_directories(root_ / "checkpoints");
    save(10, recipe());
    save(20, recipe());
    RunDirectory directory(*fs_, root_, session_);
    const ResumePoint point = directory.find_resume(recipe(), {.step = 10, .accept = {}}, session_);
    EXPECT_EQ(point.checkpoint, root_ / "checkpoints/step_00000010");
    // The later one is no longer this run's: not for the next start, nor to be counted when old
    // ones are deleted.
    ASSERT_EQ(point.notes.size(), 1U);
    EXPECT_THAT(point.notes[0], HasSubstr("step_00000020.set_aside: set aside"));
    EXPECT_EQ(directory.find_resume(recipe(), {}, session_).checkpoint, point.checkpoint);
    EXPECT_TRUE(std::filesystem::exists(root_ / "checkpoints/step_00000020.set_aside"));
}

TEST_F(RunDirectoryTest, StepThatIsNotThereOrDamagedIsRefusedWithTheWayOut) {
    std::filesystem::create_directories(root_ / "checkpoints");
    save(10, recipe());
    save(20, recipe());
    RunDirectory directory(*fs_, root_, session_);
    const auto ask = [&](std::int64_t step) {
        return refused(
            [&](Session& session) {
                (void)directory.find_resume(recipe(), {.step = step, .accept = {}}, session);
            },
            ExitCode::corrupt_file);
    };
    EXPECT_THAT(ask(15), HasSubstr("step_00000015"));
    // Cut short; a flipped bit is found when the file is read.
    const auto shard = root_ / "checkpoints/step_00000020/shard_00000.h5";
    std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
    EXPECT_THAT(ask(20), HasSubstr("resume with --resume.step=10"));
}

TEST_F(RunDirectoryTest, WithoutAWholeCheckpointNothingBeginsAnewByItself) {
    std::filesystem::create_directories(root_ / "checkpoints");
    save(10, recipe());
    std::filesystem::resize_file(root_ / "checkpoints/step_00000010/manifest.h5", 600);
    RunDirectory directory(*fs_, root_, session_);
    EXPECT_THAT(
        refused([&](Session& session) { (void)directory.find_resume(recipe(), {}, session); },
                ExitCode::corrupt_file),
        HasSubstr("no checkpoint is whole"));
}

TEST_F(RunDirectoryTest, OtherLogicalOptionsAreRefusedWithTheListUnlessAccepted) {
    std::filesystem::create_directories(root_ / "checkpoints");
    save(10, recipe(1));
    RunDirectory directory(*fs_, root_, session_);
    const std::string message =
        refused([&](Session& session) { (void)directory.find_resume(recipe(2), {}, session); },
                ExitCode::bad_input);
    EXPECT_THAT(message, HasSubstr("run.seed: '1' in the checkpoint, '2' now"));
    EXPECT_THAT(message, HasSubstr("--resume.accept"));
    EXPECT_TRUE(directory.find_resume(recipe(2), {.step = -1, .accept = {"run.seed"}}, session_)
                    .checkpoint.has_value());
}

TEST_F(RunDirectoryTest, OtherNumericsVersionIsRefused) {
    std::filesystem::create_directories(root_ / "checkpoints");
    save(10, recipe(), kNumericsVersion + 1);
    RunDirectory directory(*fs_, root_, session_);
    EXPECT_THAT(
        refused([&](Session& session) { (void)directory.find_resume(recipe(), {}, session); },
                ExitCode::bad_input),
        HasSubstr("numerics version"));
}

TEST_F(RunDirectoryTest, RemainsOfADeadWriterAreTidiedAndNoted) {
    std::filesystem::create_directories(root_ / "checkpoints" / "step_00000040.tmp");
    RunDirectory directory(*fs_, root_, session_);
    EXPECT_FALSE(std::filesystem::exists(root_ / "checkpoints" / "step_00000040.tmp"));
    EXPECT_FALSE(directory.find_resume(recipe(), {}, session_).notes.empty());
}

// ---- what all ranks check together

TEST(StartTogether, MergesTheProblemsOfAllRanksAndNamesThem) {
    parallel::ThreadWorld world(4);
    std::array<std::string, 4> texts;
    world.run([&](parallel::Communicator& ranks) {
        Session session(ranks, nullptr);
        try {
            session.start_together([&] {
                if (ranks.rank() == 2) throw Problems({"the same", "only here"});
                throw Problems({"the same"});
            });
        } catch (const StartRefused& refused) {
            EXPECT_EQ(refused.code(), ExitCode::bad_input);
            texts[static_cast<std::size_t>(ranks.rank())] = refused.merged();
        }
    });
    EXPECT_EQ(texts[0], "2 problems:\n  the same\n  only here (rank 2)");
    EXPECT_EQ(texts[1], "");
}

TEST(StartTogether, GoesOnWhenNobodyHasAProblem) {
    parallel::ThreadWorld world(2);
    world.run([](parallel::Communicator& ranks) {
        Session session(ranks, nullptr);
        session.start_together([] {});
        session.require_same("recipe", "equal", "");
    });
}

TEST(StartTogether, CodesFollowTheKindOfProblem) {
    const auto self = parallel::make_self_communicator({});
    Session session(*self, nullptr);
    const auto code_of = [&](const std::function<void()>& check) {
        try {
            session.start_together(check);
        } catch (const StartRefused& refused) {
            return refused.code();
        }
        return ExitCode::done;
    };
    EXPECT_EQ(code_of([] { throw EnvironmentError("disk"); }), ExitCode::environment);
    EXPECT_EQ(code_of([] { throw CorruptFile("file"); }), ExitCode::corrupt_file);
    EXPECT_EQ(code_of([] { throw std::logic_error("defect"); }), ExitCode::internal);
    EXPECT_EQ(code_of([] { throw std::bad_alloc(); }), ExitCode::environment);
}

TEST(RequireSame, NamesTheRanksThatDiffer) {
    parallel::ThreadWorld world(4);
    std::string text;
    world.run([&](parallel::Communicator& ranks) {
        Session session(ranks, nullptr);
        try {
            session.require_same("recipe", ranks.rank() == 3 ? "b" : "a",
                                 "start all with one file");
            ADD_FAILURE();
        } catch (const StartRefused& refused) {
            EXPECT_EQ(refused.code(), ExitCode::bad_input);
            if (ranks.rank() == 0) text = refused.merged();
        }
    });
    EXPECT_THAT(text, HasSubstr("the recipe is not the same on all ranks: rank 3 of 4"));
    EXPECT_THAT(text, HasSubstr("start all with one file"));
}

}  // namespace
}  // namespace rankwise::app
