// Rejection sampling: what is kept, that no layout or restart changes it, and how it refuses.
#include "src/stages/reject.hpp"

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/support/throws.hpp"
#include "tests/unit/stages/toy_run.hpp"

namespace rankwise::stages {
namespace {

using test::metric;
using test::ToyRun;

/// Answers of one token, of which three words are right (think_format); they never end.
RejectOptions reject_options() {
    RejectOptions options;
    options.num_prompts = 10;
    options.num_prompts_per_step = 4;
    options.num_generations = 6;
    options.sampling.max_completion_length = 1;
    options.rewards.reward_funcs = {"think_format"};
    options.filter_funcs = {};
    options.filter_min = {};
    options.keep_unfinished = true;
    options.max_per_prompt = 2;
    return options;
}

class Rejection : public testing::Test {
  protected:
    Rejection()
        : folder_(std::filesystem::temp_directory_path() /
                  fmt::format("rankwise_reject_{}", getpid())) {
        std::filesystem::remove_all(folder_);
        std::filesystem::create_directories(folder_);
    }
    ~Rejection() override { std::filesystem::remove_all(folder_); }

    void prepare(ToyRun& run, const std::string& name) {
        run.environment.files = fs_.get();
        run.environment.data_folder = folder_;
        run.environment.stage = name;
    }
    /// The metrics of the last of steps [begin, end).
    static io::MetricLine run_steps(ToyRun& run, const RejectOptions& options, std::int64_t begin,
                                    std::int64_t end) {
        const auto stage = make_reject(run.environment, options);
        io::MetricLine last;
        for (std::int64_t step = begin; step < end; ++step) last = stage->step(step).metrics;
        return last;
    }
    std::string text(const std::string& name) const {
        std::ifstream in(folder_ / (name + ".jsonl"));
        std::ostringstream all;
        all << in.rdbuf();
        return all.str();
    }

    std::filesystem::path folder_;
    std::unique_ptr<io::FileSystem> fs_ = io::posix_file_system();
};

TEST_F(Rejection, KeepsDifferentRightAnswersAndCountsWhatItDropped) {
    test::on_one_rank([&](ToyRun& run) {
        prepare(run, "one");
        const io::MetricLine last = run_steps(run, reject_options(), 0, 3);
        const std::string rows = text("one");
        const auto lines = std::count(rows.begin(), rows.end(), '\n');
        EXPECT_GT(lines, 3);
        EXPECT_EQ(metric(last, "kept"), static_cast<double>(lines));
        EXPECT_GT(metric(last, "dropped/score"), 0.0);
        EXPECT_GT(metric(last, "dropped/duplicate"), 0.0);
        EXPECT_EQ(rows.find("<answer>7</answer>\",\"completion_ids\":[9]"), std::string::npos)
            << "a wrong answer was kept";
        EXPECT_EQ(rows.substr(0, 30), "{\"id\":0,\"prompt\":\"go\",\"complet");
        // Answers of a prompt are different from each other.
        std::set<std::string> seen;
        std::istringstream in(rows);
        for (std::string line; std::getline(in, line);) {
            const std::string key =
                line.substr(line.find("\"prompt\""),
                            line.find(",\"prompt_id\"") - line.find("\"prompt\"")) +
                line.substr(line.find("\"prompt_id\""),
                            line.find(",\"sample\"") - line.find("\"prompt_id\""));
            EXPECT_TRUE(seen.insert(key).second) << line;
        }
    });
}

TEST_F(Rejection, WritesTheSameBytesWithAnyNumberOfRanksAndAfterARestart) {
    for (const int ranks : {1, 2, 3}) {
        parallel::ThreadWorld world(ranks);
        world.run([&](parallel::Communicator& communicator) {
            ToyRun run(communicator);
            prepare(run, fmt::format("ranks_{}", ranks));
            (void)run_steps(run, reject_options(), 0, 3);
        });
    }
    EXPECT_FALSE(text("ranks_1").empty());
    EXPECT_EQ(text("ranks_2"), text("ranks_1"));
    EXPECT_EQ(text("ranks_3"), text("ranks_1"));
    parallel::ThreadWorld two(2);
    two.run([&](parallel::Communicator& communicator) {
        ToyRun run(communicator);
        prepare(run, "again");
        (void)run_steps(run, reject_options(), 0, 2);
    });
    test::on_one_rank([&](ToyRun& run) {
        prepare(run, "again");
        (void)run_steps(run, reject_options(), 2, 3);
    });
    EXPECT_EQ(text("again"), text("ranks_1"));
}

TEST_F(Rejection, BeginsAtItsFirstPrompt) {
    test::on_one_rank([&](ToyRun& run) {
        prepare(run, "first");
        RejectOptions four = reject_options();
        four.num_prompts = 4;
        four.first_prompt = 500;
        const auto stage = make_reject(run.environment, four);
        const StepResult result = stage->step(0);
        ASSERT_EQ(result.rollouts.size(), 24U);
        EXPECT_EQ(result.rollouts.front().prompt_id, 1500U);
        EXPECT_EQ(result.rollouts.back().prompt_id, 1503U);
    });
}

TEST_F(Rejection, OfTooManyKeepsTheHardest) {
    test::on_one_rank([&](ToyRun& run) {
        prepare(run, "few");
        RejectOptions few = reject_options();
        few.max_kept = 3;
        const io::MetricLine last = run_steps(run, few, 0, 3);
        EXPECT_EQ(metric(last, "kept"), 3.0);
        EXPECT_GT(metric(last, "dropped/over_total"), 0.0);
    });
}

TEST_F(Rejection, WithNothingToLearnFromItNamesThePrompts) {
    test::on_one_rank([&](ToyRun& run) {
        prepare(run, "none");
        RejectOptions strict = reject_options();
        strict.min_score = 2.0;
        EXPECT_THROW_WITH((void)run_steps(run, strict, 0, 3), BadNumbers,
                          "none of 60 answers to 10 prompts (\"go\", \"go 8\"");
        EXPECT_TRUE(text("none").empty());
    });
}

/// "example 3" has the prompt 4 and the response 5, 1.
class Examples final : public tasks::DemonstrationSet {
  public:
    [[nodiscard]] std::optional<std::int64_t> size() const override { return 3; }
    [[nodiscard]] tasks::Demonstration demonstration(std::int64_t index) const override {
        const auto id = static_cast<TokenId>(index % 3);
        return {static_cast<std::uint64_t>(index), {2 + id}, {3 + id, 1}};
    }
};

TEST_F(Rejection, MixesInWorkedExamplesByTheirRatioToWhatIsKept) {
    test::on_one_rank([&](ToyRun& run) {
        prepare(run, "alone");
        const io::MetricLine alone = run_steps(run, reject_options(), 0, 3);
        run.task.demonstrations = std::make_unique<Examples>();
        prepare(run, "mixed");
        RejectOptions half = reject_options();
        half.mix_demonstrations = 0.5;
        const io::MetricLine mixed = run_steps(run, half, 0, 3);
        const double kept = metric(alone, "kept");
        EXPECT_EQ(metric(mixed, "kept"), kept);
        EXPECT_EQ(metric(mixed, "mixed_in"), std::ceil(0.5 * kept));
        // What was kept stands first, as without them; they are told apart, and taken in turn.
        const std::string rows = text("mixed");
        EXPECT_TRUE(rows.starts_with(text("alone")));
        const std::string rest = rows.substr(text("alone").size());
        EXPECT_EQ(std::count(rest.begin(), rest.end(), '\n'),
                  static_cast<std::ptrdiff_t>(std::ceil(0.5 * kept)));
        std::istringstream in(rest);
        std::int64_t index = 0;
        for (std::string line; std::getline(in, line); ++index) {
            EXPECT_NE(
                line.find(fmt::format("\"prompt_ids\":[{}],\"completion_ids\":[{},1],\"source\":"
                                      "\"demonstrations\"",
                                      2 + index % 3, 3 + index % 3)),
                std::string::npos)
                << line;
        }
    });
}

TEST_F(Rejection, RefusesFiltersWithoutValues) {
    test::on_one_rank([&](ToyRun& run) {
        prepare(run, "bad");
        RejectOptions bad = reject_options();
        bad.filter_funcs = {"format", "nonsense"};
        bad.filter_min = {1.0};
        EXPECT_THROW_WITH((void)make_reject(run.environment, bad), BadInput,
                          "filter_funcs names 2 filters, but filter_min has 1 values");
        bad.filter_min = {1.0, 1.0};
        EXPECT_THROW_WITH((void)make_reject(run.environment, bad), BadInput, "nonsense");
        bad = reject_options();
        bad.mix_demonstrations = 1.0;
        EXPECT_THROW_WITH((void)make_reject(run.environment, bad), BadInput, "no worked examples");
    });
}

}  // namespace
}  // namespace rankwise::stages
