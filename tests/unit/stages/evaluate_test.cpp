// pass@1, pass@k and cons@k of answers whose worth and vote are known token by token.
#include "src/stages/evaluate.hpp"

#include "src/stages/interval.hpp"
#include "src/tasks/countdown.hpp"
#include "src/tasks/difficulty.hpp"
#include "tests/unit/stages/toy_run.hpp"

namespace rankwise::stages {
namespace {

using test::ToyRun;

/// By the token that an answer is: whether `think_format` calls it right, and its vote.
struct Worth {
    bool right = false;
    std::string vote;
};
const std::vector<Worth> kWorth{
    {false, ""}, {false, ""},  {false, "go"}, {true, "7"},  {true, "7"},
    {true, "5"}, {false, "8"}, {false, "9"},  {false, "9"}, {false, "<answer>7</answer>"}};

EvaluateOptions options(std::int64_t problems, std::int64_t samples) {
    EvaluateOptions options{.problems = problems, .samples = samples};
    options.sampling.max_completion_length = 1;
    options.rewards.reward_funcs = {"think_format"};
    return options;
}

EvaluationResult measure(ToyRun& run, const EvaluateOptions& options) {
    tasks::RewardSet rewards = options.rewards.rewards();
    PhaseTimer timer(run.environment, 0);
    rollout::Generator generator = make_generator(run.environment, run.models.at("policy"));
    return evaluate(run.environment, options, generator, rewards, timer);
}

struct Expected {
    double pass_1 = 0.0;
    double pass_k = 0.0;
    double consensus = 0.0;
    std::int64_t ties = 0;      // groups whose earliest answer won a tie
    std::int64_t outvoted = 0;  // groups with a right answer that lost the vote
};

Expected count(std::span<const Trajectory> answers, std::size_t k) {
    Expected expected;
    for (std::size_t g = 0; g < answers.size(); g += k) {
        double right = 0.0;
        std::size_t most = 0;
        std::size_t winners = 0;
        bool winner_right = false;
        for (std::size_t s = 0; s < k; ++s) {
            const Worth& own = kWorth.at(static_cast<std::size_t>(answers[g + s].answer()[0]));
            right += own.right ? 1.0 : 0.0;
            std::size_t votes = 0;
            bool first = true;
            for (std::size_t o = 0; o < k; ++o) {
                const Worth& other =
                    kWorth.at(static_cast<std::size_t>(answers[g + o].answer()[0]));
                if (other.vote != own.vote) continue;
                ++votes;
                first = first && o >= s;
            }
            if (votes > most) {
                most = votes;
                winner_right = own.right;
                winners = 0;
            }
            winners += votes == most && first ? 1 : 0;
        }
        expected.pass_1 += right / static_cast<double>(k);
        expected.pass_k += right > 0.0 ? 1.0 : 0.0;
        expected.consensus += winner_right ? 1.0 : 0.0;
        expected.ties += winners > 1 ? 1 : 0;
        expected.outvoted += right > 0.0 && !winner_right ? 1 : 0;
    }
    const auto groups = static_cast<double>(answers.size() / k);
    expected.pass_1 /= groups;
    expected.pass_k /= groups;
    expected.consensus /= groups;
    return expected;
}

TEST(Evaluate, PassAndConsensusAreThoseOfAnswersCountedByHand) {
    test::on_one_rank([](ToyRun& run) {
        const EvaluationResult result = measure(run, options(40, 5));
        ASSERT_EQ(result.rollouts.size(), 200U);
        const Expected expected = count(result.rollouts, 5);
        EXPECT_NEAR(test::metric(result.metrics, "eval/pass@1"), expected.pass_1, 1e-12);
        EXPECT_NEAR(test::metric(result.metrics, "eval/pass@5"), expected.pass_k, 1e-12);
        EXPECT_NEAR(test::metric(result.metrics, "eval/cons@5"), expected.consensus, 1e-12);
        // The cases that tell rules apart are among them.
        EXPECT_GT(expected.pass_k, expected.pass_1);
        EXPECT_GT(expected.ties, 0);
        EXPECT_GT(expected.outvoted, 0);
    });
}

TEST(Evaluate, WithOneAnswerAProblemThereIsNoVote) {
    test::on_one_rank([](ToyRun& run) {
        const EvaluationResult result = measure(run, options(0, 1));
        EXPECT_EQ(result.rollouts.size(), 40U);
        EXPECT_NEAR(test::metric(result.metrics, "eval/pass@1"), count(result.rollouts, 1).pass_1,
                    1e-12);
        for (const auto& entry : result.metrics) EXPECT_NE(entry.first, "eval/cons@1");
    });
}

TEST(Evaluate, RanksChangeNothingAndTrainingStreamsAreNotTouched) {
    io::MetricLine expected;
    test::on_one_rank([&](ToyRun& run) {
        expected = test::without_times(measure(run, options(11, 3)).metrics);
        const UInt128 weights = run.digest("policy");
        EXPECT_EQ(test::without_times(measure(run, options(11, 3)).metrics), expected);
        EXPECT_EQ(run.digest("policy"), weights);
    });
    parallel::ThreadWorld(3).run([&](parallel::Communicator& world) {
        ToyRun run(world, {.slots = 2});
        EXPECT_EQ(test::without_times(measure(run, options(11, 3)).metrics), expected);
    });
}

TEST(Evaluate, IntervalsAreOverProblems) {
    test::on_one_rank([](ToyRun& run) {
        const EvaluationResult result = measure(run, options(40, 5));
        std::vector<double> right(40, 0.0);
        std::vector<double> lengths(40, 0.0);
        for (const Trajectory& answer : result.rollouts) {
            const auto group = static_cast<std::size_t>(answer.group);
            const bool good = kWorth.at(static_cast<std::size_t>(answer.answer()[0])).right;
            right[group] += good ? 1.0 : 0.0;
            lengths[group] += static_cast<double>(answer.answer_size());
        }
        const std::vector<double> five(40, 5.0);
        const auto bounds = [&](const std::string& name) {
            return std::pair(test::metric(result.metrics, "eval/" + name + "/ci95_low"),
                             test::metric(result.metrics, "eval/" + name + "/ci95_high"));
        };
        const Interval pass_1 = ratio_interval(right, five).value();
        EXPECT_NEAR(bounds("pass@1").first, pass_1.low, 1e-12);
        EXPECT_NEAR(bounds("pass@1").second, pass_1.high, 1e-12);
        const Expected expected = count(result.rollouts, 5);
        EXPECT_NEAR(bounds("cons@5").second, wilson_interval(expected.consensus, 40.0)->high,
                    1e-12);
        EXPECT_NEAR(bounds("pass@5").first, wilson_interval(expected.pass_k, 40.0)->low, 1e-12);
        EXPECT_NEAR(bounds("completions/mean_length").first, ratio_interval(lengths, five)->low,
                    1e-12);
        const double cut = test::metric(result.metrics, "eval/cut_off");
        EXPECT_NEAR(bounds("cut_off").first, wilson_interval(cut, 40.0)->low, 1e-12);
        EXPECT_GT(cut, 0.0);
    });
}

/// Problems of Countdown, in words that the toy model knows; every `other`-th one is of another
/// task.
class Puzzles final : public tasks::Dataset {
  public:
    explicit Puzzles(std::int64_t other) : other_(other) {}
    [[nodiscard]] std::optional<std::int64_t> size() const override { return 30; }
    [[nodiscard]] tasks::Problem problem(std::int64_t index) const override {
        tasks::Problem problem = held_out_.problem(index);
        problem.prompt = index % 2 == 0 ? "go" : "go 8";
        if (other_ > 0 && index % other_ == 0) problem.task = "other";
        return problem;
    }

  private:
    tasks::countdown::HeldOut held_out_;
    std::int64_t other_;
};

TEST(Evaluate, CountsByDifficulty) {
    test::on_one_rank([](ToyRun& run) {
        run.task.held_out = std::make_unique<Puzzles>(0);
        EvaluateOptions two = options(30, 2);
        two.sampling.max_completion_length = 4;
        const EvaluationResult result = measure(run, two);
        for (std::size_t d = 0; d < tasks::kDifficulties.size(); ++d) {
            std::vector<double> right;
            std::vector<double> lengths;
            for (const Trajectory& answer : result.rollouts) {
                const tasks::Problem problem = run.task.held_out->problem(answer.group);
                if (tasks::difficulty_of(problem) != d) continue;
                right.push_back(answer.scores.front().value);
                lengths.push_back(static_cast<double>(answer.answer_size()));
            }
            ASSERT_FALSE(right.empty());
            const std::string name(tasks::kDifficulties[d]);
            EXPECT_NEAR(test::metric(result.metrics, "eval/pass@1/" + name), mean_of(right), 1e-12);
            EXPECT_EQ(test::metric(result.metrics, "eval/problems/" + name),
                      static_cast<double>(right.size()) / 2.0);
            EXPECT_NEAR(test::metric(result.metrics, "eval/completions/mean_length/" + name),
                        mean_of(lengths), 1e-12);
        }
        EXPECT_EQ(test::metric(result.metrics, "eval/restarts"), 0.0);
    });
}

TEST(Evaluate, WhereTasksAreMixedOnlyWhatAllHaveIsCounted) {
    io::MetricLine expected;
    test::on_one_rank([&](ToyRun& run) {
        run.task.held_out = std::make_unique<Puzzles>(3);
        expected = test::without_times(measure(run, options(11, 3)).metrics);
        EXPECT_GT(test::metric(expected, "eval/cut_off"), 0.0);
        for (const auto& entry : expected) EXPECT_NE(entry.first, "eval/tries");
    });
    parallel::ThreadWorld(3).run([&](parallel::Communicator& world) {
        ToyRun run(world, {.slots = 2});
        run.task.held_out = std::make_unique<Puzzles>(3);
        EXPECT_EQ(test::without_times(measure(run, options(11, 3)).metrics), expected);
    });
}

}  // namespace
}  // namespace rankwise::stages
