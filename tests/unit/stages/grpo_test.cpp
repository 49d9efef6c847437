// What a step of GRPO draws, keeps, counts and learns from.
#include "src/stages/grpo.hpp"

#include <algorithm>

#include "src/update/advantages.hpp"
#include "tests/support/throws.hpp"
#include "tests/unit/io/scratch.hpp"
#include "tests/unit/stages/toy_run.hpp"

namespace rankwise::stages {
namespace {

using test::metric;
using test::ToyRun;

constexpr std::int64_t kPrompts = 4;
constexpr std::int64_t kGroup = 3;
constexpr std::int64_t kLongest = 6;

/// The reward is a function of an answer's length alone: 0 for one token, -1 for six.
GrpoOptions options_of_grpo() {
    GrpoOptions options;
    options.steps = 4;
    options.num_prompts_per_step = kPrompts;
    options.num_generations = kGroup;
    options.sampling.max_completion_length = kLongest;
    options.rewards.reward_funcs = {"soft_overlong(max_length=6 cache=5)"};
    options.optimizer.learning_rate = 0.01;
    options.optimizer.lr_scheduler_type = "constant";
    options.optimizer.chunk_tokens = 16;
    options.optimizer.chunk_multiple = 3;
    return options;
}

double reward_of(std::int64_t length) {
    return length == 1 ? 0.0 : (1.0 - static_cast<double>(length)) / 5.0;
}

/// Steps at which each step of a stage measured itself.
std::vector<std::vector<std::int64_t>> measured(std::int64_t steps, std::int64_t every) {
    std::vector<std::vector<std::int64_t>> all;
    test::on_one_rank([&](ToyRun& run) {
        GrpoOptions options = options_of_grpo();
        options.steps = steps;
        options.eval_steps = every;
        options.evaluation.sampling.max_completion_length = 4;
        const auto stage = make_grpo(run.environment, options);
        for (std::int64_t step = 0; step < steps; ++step) {
            all.emplace_back();
            for (const StepEvaluation& evaluation : stage->step(step).evaluations)
                all.back().push_back(evaluation.step);
        }
    });
    return all;
}

TEST(Grpo, MeasuresItselfFirstEverySoManyStepsAndLast) {
    using Steps = std::vector<std::vector<std::int64_t>>;
    EXPECT_EQ(measured(1, 5), (Steps{{0, 1}}));
    EXPECT_EQ(measured(3, 2), (Steps{{0}, {2}, {3}}));
    EXPECT_EQ(measured(2, 1), (Steps{{0, 1}, {2}}));
    EXPECT_EQ(measured(2, 0), (Steps{{}, {}}));
}

/// Answers to problems [begin, begin + count) as step `index` draws them, in canonical order.
std::vector<Trajectory> draw(ToyRun& run, std::int64_t begin, std::int64_t count,
                             std::int64_t index) {
    std::vector<rollout::Request> requests;
    for (std::int64_t i = 0; i < count; ++i) {
        const tasks::Problem problem = run.task.train->problem(begin + i);
        requests.push_back({.prompt_id = problem.id,
                            .group = i,
                            .samples = kGroup,
                            .step = static_cast<std::uint32_t>(index),
                            .prompt = run.task.prompt_ids(problem)});
    }
    rollout::Generator generator(run.model.compute, run.models.at("policy"), {}, nullptr,
                                 test::kToyIds);
    rollout::LocalWork work(requests);
    return generator.run(
        requests,
        {.max_new_tokens = kLongest, .stop_ids = {test::kToyEos}, .seed = run.environment.seed},
        work, 0, {});
}

using Texts = std::vector<std::vector<TokenId>>;

Texts tokens_of(std::span<const Trajectory> answers) {
    Texts texts;
    for (const Trajectory& answer : answers) texts.push_back(answer.tokens);
    return texts;
}

/// The first `wanted` groups whose rewards differ, from rounds of `kPrompts` problems.
Texts first_that_pass(ToyRun& run, std::int64_t& cursor, std::int64_t index) {
    Texts kept;
    while (std::ssize(kept) < kPrompts * kGroup) {
        const auto round = draw(run, cursor, kPrompts, index);
        cursor += kPrompts;
        for (std::size_t g = 0; g < round.size(); g += kGroup) {
            const auto group = std::span(round).subspan(g, kGroup);
            const bool equal = std::ranges::all_of(group, [&](const Trajectory& answer) {
                return reward_of(answer.answer_size()) == reward_of(group[0].answer_size());
            });
            if (equal || std::ssize(kept) == kPrompts * kGroup) continue;
            for (const Trajectory& answer : group) kept.push_back(answer.tokens);
        }
    }
    return kept;
}

TEST(Grpo, DynamicSamplingKeepsTheFirstGroupsThatDifferWhoeverFinishesFirst) {
    GrpoOptions dynamic = options_of_grpo();
    dynamic.dynamic_sampling = true;
    dynamic.optimizer.learning_rate = 0.0;  // so that every step draws from the same weights
    std::vector<Texts> expected;
    std::int64_t cursor = 0;
    test::on_one_rank([&](ToyRun& run) {
        for (std::int64_t step = 0; step < 3; ++step) {
            expected.push_back(first_that_pass(run, cursor, step));
        }
    });
    EXPECT_GT(cursor, 3 * kPrompts);  // one round did not do
    std::vector<UInt128> digests;
    for (const int ranks : {1, 2, 3}) {
        for (const std::int64_t slots : {2, 64}) {
            std::mutex mutex;
            std::vector<std::vector<Trajectory>> found(3);
            UInt128 digest;
            parallel::ThreadWorld(ranks).run([&](parallel::Communicator& world) {
                ToyRun run(world, {.slots = slots, .deal_interval = ranks});
                const auto stage = make_grpo(run.environment, dynamic);
                for (std::size_t step = 0; step < 3; ++step) {
                    StepResult result = stage->step(static_cast<std::int64_t>(step));
                    const std::lock_guard lock(mutex);
                    for (Trajectory& answer : result.rollouts) {
                        EXPECT_NEAR(answer.reward, reward_of(answer.answer_size()), 1e-15);
                        found[step].push_back(std::move(answer));
                    }
                    digest = result.rollouts_digest;
                }
                EXPECT_EQ(std::get<std::int64_t>(stage->state().at("cursor")), cursor);
            });
            for (std::size_t step = 0; step < 3; ++step) {
                std::ranges::sort(found[step], {}, [](const Trajectory& answer) {
                    return std::pair(answer.group, answer.sample);
                });
                EXPECT_EQ(tokens_of(found[step]), expected[step]) << ranks << " ranks";
            }
            digests.push_back(digest);
        }
    }
    EXPECT_EQ(digests, std::vector<UInt128>(digests.size(), digests[0]));
}

TEST(Grpo, BeginsAtItsFirstPromptAndGoesOnFromThere) {
    test::on_one_rank([](ToyRun& run) {
        GrpoOptions later = options_of_grpo();
        later.first_prompt = 500;
        const auto stage = make_grpo(run.environment, later);
        EXPECT_EQ(stage->step(0).rollouts.front().prompt_id, 1500U);
        EXPECT_EQ(stage->step(1).rollouts.front().prompt_id, 1500U + kPrompts);
    });
}

TEST(Grpo, DynamicSamplingGivesUpAfterItsRounds) {
    GrpoOptions hopeless = options_of_grpo();
    hopeless.dynamic_sampling = true;
    hopeless.max_sampling_rounds = 2;
    hopeless.rewards.reward_funcs = {"tag_count"};
    hopeless.sampling.temperature = 0.0;  // the answers of a group are the same
    test::on_one_rank([&](ToyRun& run) {
        const auto stage = make_grpo(run.environment, hopeless);
        EXPECT_THROW_WITH(stage->step(0), BadNumbers, "after 2 rounds of 4 prompts only 0 groups");
    });
}

/// -sum of advantage * tokens / all tokens, over the answers that count: the loss of DAPO where
/// every ratio is 1.
double first_loss(std::span<const Trajectory> answers, bool filter) {
    std::vector<double> rewards;
    for (const Trajectory& answer : answers) rewards.push_back(reward_of(answer.answer_size()));
    const auto advantages =
        update::group_advantages(rewards, kGroup, update::RewardScaling::group).values;
    double loss = 0.0;
    double tokens = 0.0;
    for (std::size_t i = 0; i < answers.size(); ++i) {
        if (filter && answers[i].finish_reason != FinishReason::stop) continue;
        loss -= advantages[i] * static_cast<double>(answers[i].answer_size());
        tokens += static_cast<double>(answers[i].answer_size());
    }
    return loss / tokens;
}

TEST(Grpo, OverlongFilteringTakesCutOffAnswersOutOfTheLossAndItsNormaliser) {
    GrpoOptions filtered = options_of_grpo();
    filtered.mask_truncated_completions = true;
    std::vector<double> norms;
    for (const GrpoOptions& some : {options_of_grpo(), filtered}) {
        test::on_one_rank([&](ToyRun& run) {
            const auto answers = draw(run, 0, kPrompts, 0);
            const bool filter = some.mask_truncated_completions;
            EXPECT_GT(std::abs(first_loss(answers, true) - first_loss(answers, false)), 1e-3);
            const StepResult result = make_grpo(run.environment, some)->step(0);
            EXPECT_EQ(tokens_of(result.rollouts), tokens_of(answers));
            EXPECT_NEAR(metric(result.metrics, "loss"), first_loss(answers, filter), 1e-12);
            // Rewards and advantages are those of all answers, filtered or not.
            EXPECT_LT(metric(result.metrics, "reward"), 0.0);
            norms.push_back(metric(result.metrics, "grad_norm"));
        });
    }
    EXPECT_NE(norms[0], norms[1]);
}

TEST(Grpo, WhereEveryAnswerIsCutOffAFilteredStepLearnsNothing) {
    GrpoOptions filtered = options_of_grpo();
    filtered.mask_truncated_completions = true;
    filtered.sampling.max_completion_length = 1;
    filtered.sampling.top_k = 1;
    filtered.rewards.reward_funcs = {"tag_count"};
    test::on_one_rank([&](ToyRun& run) {
        const UInt128 before = run.digest("policy");
        const auto stage = make_grpo(run.environment, filtered);
        const StepResult result = stage->step(0);
        EXPECT_EQ(metric(result.metrics, "completions/clipped_ratio"), 1.0);
        EXPECT_EQ(metric(result.metrics, "loss"), 0.0);
        EXPECT_EQ(run.digest("policy"), before);
    });
}

TEST(Grpo, OnlyTheFirstMinibatchOfFreshAnswersHasRatiosOfOne) {
    struct Case {
        std::int64_t minibatches;
        std::int64_t iterations;
    };
    for (const Case c : {Case{1, 1}, Case{2, 1}, Case{1, 2}, Case{4, 3}}) {
        GrpoOptions some = options_of_grpo();
        some.num_minibatches = c.minibatches;
        some.num_iterations = c.iterations;
        some.num_prompts_per_step = 12;
        some.epsilon = some.epsilon_high = 0.0;  // any ratio but 1 counts as clipped
        test::on_one_rank([&](ToyRun& run) {
            const auto stage = make_grpo(run.environment, some);
            for (std::int64_t step = 0; step < 3; ++step) {
                const StepResult result = stage->step(step);
                EXPECT_EQ(metric(result.metrics, "sampling/sampling_logp_difference/max"), 0.0);
                const double clipped = metric(result.metrics, "clip_ratio/region_mean");
                EXPECT_EQ(clipped > 0.0, c.minibatches * c.iterations > 1)
                    << c.minibatches << " minibatches, " << c.iterations << " iterations";
            }
            EXPECT_EQ(stage->updates(), 3 * c.minibatches * c.iterations);
        });
    }
}

TEST(Grpo, TheReferenceBecomesThePolicyEveryKSteps) {
    GrpoOptions some = options_of_grpo();
    some.beta = 0.1;
    some.ref_model_sync_steps = 2;
    test::on_one_rank([&](ToyRun& run) {
        const auto stage = make_grpo(run.environment, some);
        EXPECT_EQ(stage->models(), std::vector<std::string>{"reference"});
        UInt128 reference = run.digest("policy");
        for (std::int64_t step = 0; step < 4; ++step) {
            EXPECT_EQ(run.digest("reference"), reference);
            const StepResult result = stage->step(step);
            // Fresh from a synchronisation policy and reference are one model, bit for bit.
            if (step % 2 == 0) {
                EXPECT_EQ(metric(result.metrics, "kl"), 0.0);
            } else {
                EXPECT_GT(metric(result.metrics, "kl"), 0.0);
                reference = run.digest("policy");
            }
        }
    });
}

TEST(Grpo, WithoutSynchronisationTheReferenceStaysTheFirstPolicyAndGoesWithTheStage) {
    GrpoOptions some = options_of_grpo();
    some.beta = 0.1;
    test::on_one_rank([&](ToyRun& run) {
        const UInt128 first = run.digest("policy");
        auto stage = make_grpo(run.environment, some);
        for (std::int64_t step = 0; step < 3; ++step) (void)stage->step(step);
        EXPECT_EQ(run.digest("reference"), first);
        EXPECT_NE(run.digest("policy"), first);
        stage.reset();
        EXPECT_FALSE(run.models.has("reference"));
    });
}

TEST(Grpo, GroupsOfEqualRewardsGiveNoAdvantageNoLossAndFiniteMetrics) {
    GrpoOptions some = options_of_grpo();
    // -1 for any length, weighed: the mean of three times -0.1 is not -0.1 in double.
    some.rewards.reward_funcs = {"soft_overlong(max_length=1 cache=1)"};
    some.rewards.reward_weights = {0.1};
    for (const double beta : {0.0, 0.1}) {
        some.beta = beta;
        test::on_one_rank([&](ToyRun& run) {
            const UInt128 before = run.digest("policy");
            const auto stage = make_grpo(run.environment, some);
            const StepResult result = stage->step(0);
            for (const Trajectory& answer : result.rollouts) {
                EXPECT_EQ(answer.reward, -0.1);
                EXPECT_EQ(answer.advantage, 0.0);
            }
            EXPECT_EQ(metric(result.metrics, "frac_reward_zero_std"), 1.0);
            EXPECT_EQ(metric(result.metrics, "loss"), 0.0);
            for (const auto& entry : result.metrics) {
                EXPECT_TRUE(std::isfinite(metric(result.metrics, entry.first))) << entry.first;
            }
            EXPECT_EQ(run.digest("policy"), before);
        });
    }
}

TEST(Grpo, MetricsRolloutsAndWeightsAreTheSameOnAnyNumberOfRanks) {
    GrpoOptions some = options_of_grpo();
    some.num_minibatches = 2;
    some.num_iterations = 2;
    some.beta = 0.05;
    some.mask_truncated_completions = true;
    std::vector<io::MetricLine> expected;
    UInt128 rollouts;
    UInt128 weights;
    for (const int ranks : {1, 2, 4}) {
        parallel::ThreadWorld(ranks).run([&](parallel::Communicator& world) {
            ToyRun run(world, {.slots = 3, .zero = ranks % 2});
            const auto stage = make_grpo(run.environment, some);
            std::vector<io::MetricLine> found;
            UInt128 digest;
            for (std::int64_t step = 0; step < 3; ++step) {
                const StepResult result = stage->step(step);
                found.push_back(test::without_times(result.metrics));
                digest += result.rollouts_digest;
            }
            if (ranks == 1) {
                expected = found;
                rollouts = digest;
                weights = run.digest("policy");
            }
            EXPECT_EQ(found, expected);
            EXPECT_EQ(digest, rollouts);
            EXPECT_EQ(run.digest("policy"), weights);
        });
    }
}

/// Five prompts in two micro-batches: no number of ranks but one has as much to do on each.
TEST(Grpo, RanksWithUnequalWorkOrNoneGiveTheSameAndTheLogSaysOnceThatSomeIdle) {
    GrpoOptions some = options_of_grpo();
    some.num_prompts_per_step = 5;
    some.optimizer.chunk_tokens = 400;
    some.optimizer.chunk_multiple = 2;
    UInt128 weights;
    const io::test::Scratch scratch;
    for (const int ranks : {1, 2, 3, 6}) {
        parallel::ThreadWorld(ranks).run([&](parallel::Communicator& world) {
            ToyRun run(world, {.slots = 3, .zero = 3});
            const auto file = scratch / fmt::format("{} {}.log", ranks, world.rank());
            run.log = Log(file.string(), world.rank(), LogLevel::warning);
            const auto stage = make_grpo(run.environment, some);
            for (std::int64_t step = 0; step < 3; ++step) (void)stage->step(step);
            const UInt128 digest = run.digest("policy");
            if (ranks == 1) weights = digest;
            EXPECT_EQ(digest, weights);
            run.log.flush();
            const std::string said = io::test::get(file);
            const std::string expected = fmt::format(
                "an update is cut into 2 micro-batches for {} data ranks, so that {} of them have "
                "nothing to compute",
                ranks, ranks - 2);
            const bool says = ranks > 2 && world.rank() == 0;
            EXPECT_EQ(said.find(expected) != std::string::npos, says) << said;
            EXPECT_EQ(std::ranges::count(said, '\n'), says ? 1 : 0);
        });
    }
}

}  // namespace
}  // namespace rankwise::stages
