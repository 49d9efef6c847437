#include "src/stages/checkpointing.hpp"

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>
#include <thread>

#include "src/stages/grpo.hpp"
#include "src/stages/ratio_check.hpp"
#include "tests/fault/io/faulty_fs.hpp"
#include "tests/unit/stages/toy_run.hpp"

namespace rankwise::stages {
namespace {

/// A stage with nothing but the policy.
class Idle final : public Stage {
  public:
    [[nodiscard]] std::int64_t steps() const override { return 1; }
    StepResult step(std::int64_t) override { return {}; }
};

class Checkpoints : public testing::Test {
  protected:
    Checkpoints()
        : folder_(std::filesystem::temp_directory_path() /
                  fmt::format("rankwise_checkpointing_{}", getpid())) {
        std::filesystem::remove_all(folder_);
        std::filesystem::create_directories(folder_);
    }
    ~Checkpoints() override { std::filesystem::remove_all(folder_); }

    UInt128 saved_digest(test::ToyRun& run, std::int64_t step) {
        io::CheckpointReader reader(*fs_, folder_ / io::step_name(step));
        test::ToyRun other(run.environment.data());
        load_weights(reader, "policy", other.models.at("policy"), other.model.compute);
        return other.digest("policy");
    }

    /// What a rank's shard holds.
    std::vector<std::byte> shard(const io::Path& run, std::int64_t step) {
        return io::read_file(*fs_, run / io::step_name(step) / io::shard_name(0));
    }

    std::filesystem::path folder_;
    std::unique_ptr<io::FileSystem> fs_ = io::posix_file_system();
};

TEST_F(Checkpoints, HoldTheStateAtTheSaveWhateverTheRunDoesMeanwhile) {
    for (const bool background : {false, true}) {
        test::on_one_rank([&](test::ToyRun& run) {
            std::vector<io::Path> saved;
            Checkpointer checkpointer(*fs_, folder_, run.environment, {.keep_last = 2}, background,
                                      [&](const io::Path& path) { saved.push_back(path); });
            Idle stage;
            const UInt128 at_save = run.digest("policy");
            checkpointer.save(stage, {.stage = "idle", .step = 1});
            flip_bit(run.models.at("policy"), run.model.compute, WeightCopy::master);
            EXPECT_NE(run.digest("policy"), at_save);
            checkpointer.finish();
            ASSERT_EQ(saved.size(), 1U);
            EXPECT_EQ(saved.front().filename(), io::step_name(1));
            EXPECT_EQ(saved_digest(run, 1), at_save);
            checkpointer.finish();
            checkpointer.poll();
            EXPECT_EQ(saved.size(), 1U) << "nothing is under way any more";
        });
    }
}

/// A stage that changes all that it saves: policy, moments, and the reference of every step.
std::unique_ptr<Stage> learning(const Environment& environment) {
    GrpoOptions options;
    options.steps = 3;
    options.num_prompts_per_step = 4;
    options.num_generations = 3;
    options.sampling.max_completion_length = 6;
    options.rewards.reward_funcs = {"soft_overlong(max_length=6 cache=5)"};
    options.optimizer.learning_rate = 0.01;
    options.optimizer.lr_scheduler_type = "constant";
    options.beta = 0.1;
    options.ref_model_sync_steps = 1;
    return make_grpo(environment, options);
}

TEST_F(Checkpoints, WhatIsWrittenAfterTheNextStepIsTheStateBeforeIt) {
    for (const bool background : {false, true}) {
        test::on_one_rank([&](test::ToyRun& run) {
            const io::Path folder = folder_ / (background ? "background" : "foreground");
            io::test::FaultyFileSystem slow(*fs_);
            std::promise<void> may_write;
            if (background)
                slow.before_making([gate = may_write.get_future().share()](const io::Path& path) {
                    if (path.filename().string().starts_with("shard")) gate.wait();
                });
            Checkpointer checkpointer(slow, folder, run.environment, {.keep_last = 9}, background,
                                      [](const io::Path&) {});
            const auto stage = learning(run.environment);
            const Checkpointer::StageScope scope(checkpointer);
            (void)stage->step(0);
            checkpointer.save(*stage, {.stage = "learning", .step = 1});
            const UInt128 at_save = run.digest("policy");
            (void)stage->step(1);
            EXPECT_NE(run.digest("policy"), at_save);
            may_write.set_value();
            checkpointer.save(*stage, {.stage = "learning", .step = 2});
            checkpointer.finish();
        });
    }
    for (const std::int64_t step : {1, 2})
        EXPECT_EQ(shard(folder_ / "background", step), shard(folder_ / "foreground", step)) << step;
    EXPECT_NE(shard(folder_ / "background", 1), shard(folder_ / "background", 2));
}

TEST_F(Checkpoints, AStageThatEndsIsWrittenBeforeItsMemoryGoes) {
    test::on_one_rank([&](test::ToyRun& run) {
        std::vector<std::string> saved;
        io::test::FaultyFileSystem slow(*fs_);
        slow.before_making([](const io::Path& path) {
            if (path.filename().string().starts_with("shard"))
                std::this_thread::sleep_for(std::chrono::milliseconds(50));
        });
        Checkpointer checkpointer(slow, folder_, run.environment, {.keep_last = 9}, true,
                                  [&](const io::Path& path) { saved.push_back(path.filename()); });
        {
            const auto stage = learning(run.environment);
            const Checkpointer::StageScope scope(checkpointer);
            (void)stage->step(0);
            checkpointer.save(*stage, {.stage = "learning", .step = 1});
        }
        EXPECT_TRUE(fs_->exists(folder_ / (io::step_name(1) + ".tmp") / io::shard_name(0)));
        EXPECT_TRUE(saved.empty()) << "the other ranks may still be writing";
        flip_bit(run.models.at("policy"), run.model.compute, WeightCopy::master);
        checkpointer.finish();
        EXPECT_EQ(saved, std::vector<std::string>{io::step_name(1)});
        EXPECT_FALSE(io::problem_of(*fs_, folder_ / io::step_name(1), io::Check::checksums));
    });
}

/// Goes on from the checkpoint of a step on some ranks and saves the same step anew, elsewhere.
/// @return the most files that a rank opened
std::int64_t save_again(io::FileSystem& fs, const io::Path& from, const io::Path& to, int ranks,
                        std::int64_t zero) {
    std::atomic<std::int64_t> most = 0;
    parallel::ThreadWorld(ranks).run([&](parallel::Communicator& world) {
        test::ToyRun run(world, {.zero = zero}, 6);  // from another seed
        const auto stage = learning(run.environment);
        io::CheckpointReader reader(fs, from / io::step_name(1));
        restore_stage(reader, run.environment, *stage);
        most = world.all_reduce_max("test", reader.files_opened());
        Checkpointer checkpointer(fs, to, run.environment, {}, false, [](const io::Path&) {});
        checkpointer.save(
            *stage,
            {.stage = "learning", .step = 1, .mesh = mesh_record(run.environment.mesh.shape())});
    });
    return most;
}

TEST_F(Checkpoints, ARankReadsItsOwnFileAndGetsTheRestFromTheOthers) {
    for (const std::int64_t zero : {0, 1, 3}) {
        for (const int ranks : {1, 2, 3}) {
            SCOPED_TRACE(fmt::format("{} ranks, zero = {}", ranks, zero));
            const io::Path first = folder_ / fmt::format("first_{}_{}", ranks, zero);
            parallel::ThreadWorld(ranks).run([&](parallel::Communicator& world) {
                test::ToyRun run(world, {.zero = zero});
                const auto stage = learning(run.environment);
                (void)stage->step(0);
                Checkpointer checkpointer(*fs_, first, run.environment, {}, false,
                                          [](const io::Path&) {});
                checkpointer.save(*stage, {.stage = "learning",
                                           .step = 1,
                                           .mesh = mesh_record(run.environment.mesh.shape())});
            });
            const io::Path same = folder_ / fmt::format("same_{}_{}", ranks, zero);
            EXPECT_EQ(save_again(*fs_, first, same, ranks, zero), 1);
            for (int rank = 0; rank < ranks; ++rank) {
                const io::Path file = io::Path(io::step_name(1)) / io::shard_name(rank);
                EXPECT_EQ(io::read_file(*fs_, first / file), io::read_file(*fs_, same / file));
            }
            // By way of another layout, and back.
            const io::Path other = folder_ / fmt::format("other_{}_{}", ranks, zero);
            const io::Path back = folder_ / fmt::format("back_{}_{}", ranks, zero);
            (void)save_again(*fs_, first, other, 4 - ranks, 1);
            (void)save_again(*fs_, other, back, ranks, zero);
            for (int rank = 0; rank < ranks; ++rank) {
                const io::Path file = io::Path(io::step_name(1)) / io::shard_name(rank);
                EXPECT_EQ(io::read_file(*fs_, first / file), io::read_file(*fs_, back / file));
            }
        }
    }
}

TEST_F(Checkpoints, AStageThatFailsDoesNotWaitForWhatIsUnderWay) {
    test::on_one_rank([&](test::ToyRun& run) {
        io::test::FaultyFileSystem slow(*fs_);
        std::promise<void> may_write;
        slow.before_making([gate = may_write.get_future().share()](const io::Path& path) {
            if (path.filename().string().starts_with("shard")) gate.wait();
        });
        Checkpointer checkpointer(slow, folder_, run.environment, {}, true,
                                  [](const io::Path&) { FAIL() << "it is not whole"; });
        std::thread later;
        try {
            const auto stage = learning(run.environment);
            const Checkpointer::StageScope scope(checkpointer);
            (void)stage->step(0);
            checkpointer.save(*stage, {.stage = "learning", .step = 1});
            // Opened once the stage's end has begun.
            later = std::thread([&] {
                std::this_thread::sleep_for(std::chrono::milliseconds(50));
                may_write.set_value();
            });
            throw BadNumbers("a loss");
        } catch (const BadNumbers&) {
        }
        later.join();
        EXPECT_THROW(checkpointer.finish(), InternalError);
    });
}

TEST_F(Checkpoints, ASaveCompletesTheOneBeforeAndTheOldestGo) {
    parallel::ThreadWorld world(3);
    world.run([&](parallel::Communicator& communicator) {
        test::ToyRun run(communicator);
        Checkpointer checkpointer(*fs_, folder_, run.environment, {.keep_last = 2}, true,
                                  [](const io::Path&) {});
        Idle stage;
        for (std::int64_t step = 1; step <= 4; ++step) {
            checkpointer.save(stage, {.stage = "idle", .step = step});
            if (step == 4) break;
            EXPECT_EQ(std::filesystem::exists(folder_ / io::step_name(step - 1)), step > 1);
        }
        checkpointer.finish();
        communicator.barrier("test");
        EXPECT_FALSE(std::filesystem::exists(folder_ / io::step_name(2)));
        EXPECT_TRUE(std::filesystem::exists(folder_ / io::step_name(3)));
        EXPECT_TRUE(std::filesystem::exists(folder_ / io::step_name(4)));
        communicator.barrier("test");
    });
}

TEST_F(Checkpoints, WhatCannotBeWrittenInTheBackgroundIsThrownByALaterCall) {
    io::test::FaultyFileSystem before(*fs_);
    (void)io::begin_step(before, folder_, 1);
    const std::int64_t in_foreground = before.operations();
    test::on_one_rank([&](test::ToyRun& run) {
        io::test::FaultyFileSystem full(*fs_);
        full.fail(in_foreground + 1, ENOSPC);
        std::vector<std::string> saved;
        Checkpointer checkpointer(full, folder_, run.environment, {}, true,
                                  [&](const io::Path& path) { saved.push_back(path.filename()); });
        Idle stage;
        checkpointer.save(stage, {.stage = "idle", .step = 1});
        EXPECT_THROW(checkpointer.finish(), EnvironmentError);
        EXPECT_TRUE(saved.empty()) << "a checkpoint that could not be written is not whole";
        checkpointer.save(stage, {.stage = "idle", .step = 2});
        checkpointer.finish();
        EXPECT_EQ(saved, std::vector<std::string>{io::step_name(2)});
    });
}

}  // namespace
}  // namespace rankwise::stages
