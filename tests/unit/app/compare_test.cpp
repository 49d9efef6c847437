#include "src/app/compare.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <filesystem>
#include <fstream>

#include "io/rollouts.hpp"
#include "src/app/commands.hpp"
#include "tests/unit/app/small_checkpoint.hpp"

namespace rankwise::app {
namespace {

using testing::HasSubstr;

class Compare : public testing::Test {
  protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        root_ = std::filesystem::temp_directory_path() /
                fmt::format("rankwise_compare_{}_{}", test->name(), ::getpid());
        for (const char* run : {"a", "b"}) {
            for (const char* folder : {"checkpoints", "rollouts"}) {
                std::filesystem::create_directories(root_ / run / folder);
            }
            write_metrics(run, {});
            save(run, {});
            write_rollouts(run, {});
        }
    }
    void TearDown() override { std::filesystem::remove_all(root_); }

    struct MetricChange {
        int step = 0;
        std::string weights = {};
        std::string rollouts = {};
        double loss = 0.0;
        double seconds = 0.0;
    };
    void write_metrics(const std::string& run, const MetricChange& change) {
        std::ofstream file(root_ / run / "metrics.jsonl");
        for (int step = 1; step <= 4; ++step) {
            const bool here = step == change.step;
            file << fmt::format(
                R"({{"stage":"zero","step":{},"grad_norm":1,"loss":{},"step_time":{},"digest/rollouts":"r{}{}","digest/weights":"w{}{}"}})"
                "\n",
                step, 0.5 + (here ? change.loss : 0.0), here ? change.seconds : 1.0, step,
                here ? change.rollouts : "", step, here ? change.weights : "");
        }
    }
    void save(const std::string& run, const std::function<void(test::SmallCheckpoint&)>& change) {
        test::SmallCheckpoint checkpoint;
        if (change) change(checkpoint);
        checkpoint.write(*fs_, root_ / run / "checkpoints");
    }
    void write_rollouts(const std::string& run,
                        const std::function<void(std::vector<Trajectory>&)>& change) {
        std::vector<Trajectory> trajectories;
        for (int sample = 0; sample < 2; ++sample) {
            Trajectory trajectory;
            trajectory.prompt_id = 7;
            trajectory.sample = sample;
            trajectory.tokens = {1, 2, 3};
            trajectory.logprobs = {0.0F, -0.5F, -0.25F};
            trajectory.segments = {{Speaker::user, 0, 1, false, 0},
                                   {Speaker::assistant, 1, 3, true, 4}};
            trajectory.scores = {{"accuracy", 1.0, 1, 3, ScoreStatus::ok}};
            trajectory.reward = 1.0;
            trajectories.push_back(trajectory);
        }
        if (change) change(trajectories);
        const io::Path dir = root_ / run / "rollouts";
        const io::RolloutHeader header{.stage = "zero", .step = 3};
        const io::Path tmp = io::begin_step(*fs_, dir, 3);
        const std::vector<io::RolloutPart> parts{
            io::write_rollout_part(*fs_, tmp, 0, header, trajectories)};
        (void)io::commit_rollouts(*fs_, dir, header, parts);
    }
    Comparison compare() { return compare_runs(*fs_, root_ / "a", root_ / "b"); }
    int command() {
        Arguments arguments;
        arguments.positional = {(root_ / "a").string(), (root_ / "b").string()};
        testing::internal::CaptureStdout();
        const int code = run_compare(arguments);
        output_ = testing::internal::GetCapturedStdout();
        return code;
    }

    std::filesystem::path root_;
    std::string output_;
    std::unique_ptr<io::FileSystem> fs_ = io::posix_file_system();
};

TEST_F(Compare, EqualRunsAreEqualWhateverTimeTheyTook) {
    write_metrics("b", {.step = 2, .seconds = 9.0});
    EXPECT_TRUE(compare().equal());
    EXPECT_EQ(command(), 0);
    EXPECT_THAT(output_, HasSubstr("metrics     equal (4 lines)"));
    EXPECT_THAT(output_, HasSubstr("checkpoints equal (1 steps that both have)"));
}

TEST_F(Compare, NamesTheFirstStepAndTheEarliestPhaseThatDiffer) {
    write_metrics("b", {.step = 3, .weights = "x", .rollouts = "x", .loss = 0.25});
    const Comparison comparison = compare();
    ASSERT_TRUE(comparison.metrics.has_value());
    EXPECT_EQ(comparison.metrics->place, "stage zero, step 3, generate: digest/rollouts");
    EXPECT_EQ(comparison.metrics->first, "r3");
    EXPECT_EQ(comparison.metrics->second, "r3x");
    EXPECT_EQ(command(), 5);
}

TEST_F(Compare, LossThatDiffersInItsLastBitIsADifference) {
    write_metrics("b", {.step = 2, .loss = 0x1p-53});
    const Comparison comparison = compare();
    ASSERT_TRUE(comparison.metrics.has_value());
    EXPECT_EQ(comparison.metrics->place, "stage zero, step 2, update: loss");
}

TEST_F(Compare, ShorterRunDiffersWhereItEnds) {
    std::ofstream(root_ / "b" / "metrics.jsonl", std::ios::app) << R"({"stage":"zero","step":5})"
                                                                   "\n";
    ASSERT_TRUE(compare().metrics.has_value());
    EXPECT_EQ(compare().metrics->place, "stage zero, step 5 is in one run only");
}

TEST_F(Compare, NamesTheTensorTheElementAndItsBits) {
    save("b", [](test::SmallCheckpoint& checkpoint) {
        checkpoint.embedding[3] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(4.0F) + 1);
        checkpoint.moment[0] = 1;
    });
    const Comparison comparison = compare();
    ASSERT_TRUE(comparison.checkpoints.has_value());
    EXPECT_EQ(comparison.checkpoints->place,
              "step_00000010, policy/weights model.embed_tokens.weight: row 1, column 1 (1 of 6 "
              "elements differ)");
    EXPECT_EQ(comparison.checkpoints->first, "4 (0x40800000)");
    EXPECT_EQ(comparison.checkpoints->second, "4.0000005 (0x40800001)");
}

TEST_F(Compare, OptimizerStateIsComparedToo) {
    save("b", [](test::SmallCheckpoint& checkpoint) { checkpoint.moment[5] = 1; });
    ASSERT_TRUE(compare().checkpoints.has_value());
    EXPECT_THAT(compare().checkpoints->place, HasSubstr("policy/adam_m"));
}

TEST_F(Compare, TensorThatOnlyOneCheckpointHasIsADifference) {
    save("b", [](test::SmallCheckpoint& checkpoint) { checkpoint.moment.clear(); });
    ASSERT_TRUE(compare().checkpoints.has_value());
    EXPECT_EQ(compare().checkpoints->place, "step_00000010, policy/adam_m F32");
    EXPECT_EQ(compare().checkpoints->first, "1 tensors");
    EXPECT_EQ(compare().checkpoints->second, "absent");
}

TEST_F(Compare, NamesTheTrajectoryAndWhatOfIt) {
    write_rollouts("b", [](std::vector<Trajectory>& list) { list[1].logprobs[2] = -0.125F; });
    ASSERT_TRUE(compare().rollouts.has_value());
    EXPECT_EQ(compare().rollouts->place, "step_00000003, group 0, sample 1: logprobs[2]");
    write_rollouts("b", [](std::vector<Trajectory>& list) { list[0].tokens[1] = 9; });
    EXPECT_EQ(compare().rollouts->place, "step_00000003, group 0, sample 0: tokens[1]");
    write_rollouts("b", [](std::vector<Trajectory>& list) { list[0].scores[0].value = 0.5; });
    EXPECT_EQ(compare().rollouts->place, "step_00000003, group 0, sample 0: score");
    write_rollouts("b", [](std::vector<Trajectory>& list) { list[0].advantage = 0.5; });
    EXPECT_EQ(compare().rollouts->place, "step_00000003, group 0, sample 0: advantage");
    write_rollouts(
        "b", [](std::vector<Trajectory>& list) { list[1].finish_reason = FinishReason::length; });
    EXPECT_THAT(compare().rollouts->place, HasSubstr("sample 1: segments"));
    write_rollouts("b", [](std::vector<Trajectory>& list) { list.pop_back(); });
    EXPECT_EQ(compare().rollouts->place, "step_00000003, number of trajectories");
}

TEST_F(Compare, OrderOfTrajectoriesInTheFilesDoesNotMatter) {
    write_rollouts("b", [](std::vector<Trajectory>& list) { std::swap(list[0], list[1]); });
    EXPECT_FALSE(compare().rollouts.has_value());
}

TEST_F(Compare, LogicalOptionsThatDifferAreListedAndPhysicalOnesAreNot) {
    std::ofstream(root_ / "a" / "recipe.ini") << "[run]\nseed = 1 # logical; default\n"
                                                 "ranks = 1 # physical; default\n";
    std::ofstream(root_ / "b" / "recipe.ini") << "[run]\nseed = 2 # logical; default\n"
                                                 "ranks = 8 # physical; default\n";
    EXPECT_THAT(compare().options, testing::ElementsAre("run.seed: '1' and '2'"));
}

// ---- traces of updates

using update::TracePass;
using update::TraceRecord;

constexpr UInt128 kSame{.low = 7, .high = 1};
constexpr UInt128 kOther{.low = 8, .high = 1};

/// One chunk through two layers, in the order in which it is computed, and a gradient.
std::vector<TraceRecord> a_chunk(std::int64_t chunk = 0) {
    const auto value = [&](TracePass pass, std::int64_t layer, const char* op) {
        return TraceRecord{.chunk = pass == TracePass::gradient ? -1 : chunk,
                           .pass = pass,
                           .layer = layer,
                           .op = op,
                           .digest = kSame};
    };
    return {value(TracePass::forward, 0, "o_proj"), value(TracePass::forward, 1, "o_proj"),
            value(TracePass::head, -1, "loss"),     value(TracePass::backward, 1, "dmlp"),
            value(TracePass::backward, 0, "dmlp"),  value(TracePass::gradient, 0, "norm.weight")};
}

class CompareTraces : public Compare {
  protected:
    void write(const std::string& run, const std::vector<std::vector<TraceRecord>>& ranks) {
        const TracedStep step{"zero", 2};
        begin_trace(*fs_, root_ / run / "traces", step);
        for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
            write_trace(*fs_, root_ / run / "traces", step,
                        {static_cast<int>(rank), static_cast<int>(ranks.size())}, ranks[rank]);
        }
    }
    std::filesystem::path file(const std::string& run, int rank) {
        return root_ / run / "traces/zero_00000002" / fmt::format("rank_{:05}.jsonl", rank);
    }
};

TEST_F(CompareTraces, EqualOnesAreEqualHoweverRanksShareThemOut) {
    std::vector<TraceRecord> second = a_chunk(1);
    second.pop_back();
    std::vector<TraceRecord> both = a_chunk(0);
    both.insert(both.begin() + 5, second.begin(), second.end());
    // What is split over tensor ranks otherwise has nothing to be compared with.
    both.push_back({.chunk = 1, .layer = 0, .op = "qkv", .part = 0, .parts = 1});
    write("a", {both});
    // Chunks on two ranks, which own some rows of the gradient each.
    std::vector<TraceRecord> first = a_chunk(0);
    first.back().digest = {.low = 3, .high = 1};
    second.push_back(a_chunk().back());
    second.back().digest = {.low = 4, .high = 0};
    first.push_back({.chunk = 1, .layer = 0, .op = "qkv", .part = 0, .parts = 2});
    second.push_back({.chunk = 1, .layer = 0, .op = "qkv", .part = 1, .parts = 2});
    write("b", {first, second});
    const Comparison comparison = compare();
    EXPECT_EQ(comparison.traces_compared, 1);
    EXPECT_FALSE(comparison.traces.has_value()) << comparison.traces->place;
    EXPECT_EQ(command(), 0);
    EXPECT_THAT(output_, HasSubstr("traces      equal (1 steps that both have)"));
}

TEST_F(CompareTraces, NameTheFirstThatDiffersInTheOrderOfComputationAndItsRanks) {
    write("a", {a_chunk()});
    const std::vector<std::pair<std::size_t, const char*>> places{
        {5, "stage zero, step 2, minibatch 1, gradient of norm.weight"},
        {4, "stage zero, step 2, minibatch 1, chunk 0, backward, layer 0: dmlp"},
        {3, "stage zero, step 2, minibatch 1, chunk 0, backward, layer 1: dmlp"},
        {2, "stage zero, step 2, minibatch 1, chunk 0, head: loss"},
        {1, "stage zero, step 2, minibatch 1, chunk 0, forward, layer 1: o_proj"},
        {0, "stage zero, step 2, minibatch 1, chunk 0, forward, layer 0: o_proj"}};
    std::vector<TraceRecord> b = a_chunk();
    for (const auto& [at, place] : places) {
        b[at].digest = kOther;
        write("b", {{}, b});
        const Comparison comparison = compare();
        ASSERT_TRUE(comparison.traces.has_value());
        EXPECT_EQ(comparison.traces->place, place);
        EXPECT_EQ(comparison.traces->first, to_hex(kSame) + " on rank 0");
        EXPECT_EQ(comparison.traces->second, to_hex(kOther) + " on rank 1");
    }
    EXPECT_EQ(command(), 5);
}

TEST_F(CompareTraces, AValueThatOneOfThemLacksIsADifferenceIfBothSplitItAlike) {
    std::vector<TraceRecord> a = a_chunk();
    a.push_back({.chunk = 0, .layer = 0, .order = 1, .op = "gate_up", .part = 0, .parts = 2});
    std::vector<TraceRecord> b = a;
    a.push_back({.chunk = 0, .layer = 1, .order = 1, .op = "gate_up", .part = 0, .parts = 2});
    write("a", {a});
    write("b", {b});
    const Comparison comparison = compare();
    ASSERT_TRUE(comparison.traces.has_value());
    EXPECT_THAT(comparison.traces->place, HasSubstr("layer 1: gate_up (part 1 of 2"));
    EXPECT_EQ(comparison.traces->second, "absent");
}

TEST_F(CompareTraces, OneThatIsMissingOrDamagedIsRefused) {
    write("a", {a_chunk()});
    write("b", {a_chunk(), {}});
    std::filesystem::remove(file("b", 1));
    EXPECT_THROW((void)compare(), CorruptFile);
    write("b", {a_chunk()});
    std::filesystem::resize_file(file("b", 0), std::filesystem::file_size(file("b", 0)) - 9);
    EXPECT_THROW((void)compare(), CorruptFile);
    // A whole line less; a file of a trace over another number of ranks.
    std::vector<TraceRecord> less = a_chunk();
    less.pop_back();
    write("b", {less});
    std::ofstream(file("b", 0), std::ios::app) << R"({"update":0,"chunk":-1,"pass":"gradient"})"
                                               << "\n";
    EXPECT_THROW((void)compare(), CorruptFile);
    write("b", {a_chunk(), {}, {}});
    write_trace(*fs_, root_ / "b/traces", {"zero", 2}, {1, 2}, {});
    EXPECT_THROW((void)compare(), CorruptFile);
}

TEST_F(CompareTraces, WhereThereIsNoneTheCommandSaysHowToGetOne) {
    write_metrics("b", {.step = 3, .loss = 0.25});
    EXPECT_EQ(command(), 5);
    EXPECT_THAT(output_, HasSubstr("--run.trace zero:3"));
    write("a", {a_chunk()});
    write("b", {a_chunk()});
    EXPECT_EQ(command(), 5);
    EXPECT_THAT(output_, HasSubstr("--run.trace zero:3")) << "another step was traced";
}

TEST_F(Compare, DirectoryThatIsNoRunIsRefused) {
    std::filesystem::remove(root_ / "b" / "metrics.jsonl");
    EXPECT_THROW((void)compare(), BadInput);
}

// ---- inspect and view, over the same files

class Inspect : public Compare {
  protected:
    std::string inspect(const std::filesystem::path& path,
                        std::map<std::string, std::string> options = {}) {
        Arguments arguments;
        arguments.positional = {path.string()};
        arguments.options = std::move(options);
        testing::internal::CaptureStdout();
        try {
            EXPECT_EQ(run_inspect(arguments), 0);
        } catch (...) {
            (void)testing::internal::GetCapturedStdout();
            throw;
        }
        return testing::internal::GetCapturedStdout();
    }
};

TEST_F(Inspect, TellsWhatEachKindOfFileHolds) {
    EXPECT_THAT(inspect(root_ / "a"), HasSubstr("digest/weights"));
    const std::string checkpoint =
        inspect(root_ / "a/checkpoints/step_00000010", {{"tensors", "true"}, {"verify", "true"}});
    EXPECT_THAT(checkpoint, HasSubstr("model policy: 8 parameters in 2 tensors"));
    EXPECT_THAT(checkpoint, HasSubstr("model.embed_tokens.weight"));
    EXPECT_THAT(checkpoint, HasSubstr("every checksum holds"));
    const std::string rollouts = inspect(root_ / "a/rollouts/step_00000003");
    EXPECT_THAT(rollouts, HasSubstr("answers 2 long on average"));
}

TEST_F(Inspect, DamageAndUnknownPathsAreRefused) {
    const auto shard = root_ / "a/checkpoints/step_00000010/shard_00000.h5";
    std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
    EXPECT_THROW((void)inspect(root_ / "a/checkpoints/step_00000010"), CorruptFile);
    EXPECT_THROW((void)inspect(root_ / "nothing"), BadInput);
    EXPECT_THROW((void)inspect(root_), BadInput);
}

TEST_F(Inspect, ViewOfARunIsOfItsNewestCheckpoint) {
    Arguments arguments;
    arguments.positional = {(root_ / "a").string()};
    testing::internal::CaptureStdout();
    EXPECT_EQ(run_view(arguments), 0);
    EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("step_00000010/model.h5"));
    EXPECT_TRUE(std::filesystem::exists(root_ / "a/checkpoints/step_00000010/model.h5"));
    // The checkpoint is as whole as before.
    EXPECT_EQ(io::problem_of(*fs_, root_ / "a/checkpoints/step_00000010", io::Check::checksums),
              std::nullopt);
}

}  // namespace
}  // namespace rankwise::app
