#include "src/stages/reject.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/checkpoint.hpp"
#include "src/stages/gather.hpp"
#include "src/stages/rehearsal.hpp"
#include "src/stages/rollout_files.hpp"
#include "src/stages/selection.hpp"

namespace rankwise::stages {
namespace {

/// Name of the score that says how often a prompt was answered rightly.
constexpr const char* kRightRate = "right_rate";
/// Reasons for dropping an answer that come before the filters.
constexpr std::size_t kOwnReasons = 3;
/// Prompts that are named when nothing was kept.
constexpr std::size_t kMostNamed = 5;

/// Rewards and filters together, each once; filters that are no rewards weigh nothing.
tasks::RewardSet judges_of(const RejectOptions& options) {
    std::vector<std::string> names = options.rewards.reward_funcs;
    std::vector<double> weights = options.rewards.reward_weights;
    weights.resize(names.size(), 1.0);
    for (const std::string& filter : options.filter_funcs) {
        if (std::find(names.begin(), names.end(), filter) != names.end()) continue;
        names.push_back(filter);
        weights.push_back(0.0);
    }
    return tasks::make_reward_set(names, weights);
}

class Reject final : public Stage {
  public:
    Reject(const Environment& environment, const RejectOptions& options)
        : environment_(environment),
          options_(options),
          policy_(environment.models.at("policy")),
          judges_(judges_of(options)),
          generator_(make_generator(environment, policy_)),
          steps_((options.num_prompts + options.num_prompts_per_step - 1) /
                 options.num_prompts_per_step) {
        for (const std::string& filter : options.filter_funcs)
            reasons_.push_back(tasks::parse_reward_spec(filter).name);
    }

    [[nodiscard]] std::int64_t steps() const override { return steps_; }

    void rehearse() override {
        rehearse_generation(environment_, generator_, problems_of_step(0), options_.num_generations,
                            options_.sampling.sampling(environment_));
    }

    StepResult step(std::int64_t index) override {
        PhaseTimer timer(environment_, index);
        timer.enter("generate");
        const std::vector<tasks::Problem> problems = problems_of_step(index);
        Answers answers = generate_answers(
            environment_, generator_, problems, narrow<std::int32_t>(options_.num_generations),
            narrow<std::uint32_t>(index), options_.sampling.sampling(environment_), judges_, 0,
            timer);
        timer.enter("filter");
        StepResult result;
        result.rollouts_digest = digest_of(environment_, answers.mine);
        append_answer_metrics(answers, options_.num_generations, result.metrics);
        const std::vector<Trajectory> passed = filter(answers, result.metrics);
        timer.enter("record");
        write_rollouts(*environment_.files, folder(), environment_.mesh,
                       {.stage = environment_.stage,
                        .step = index + 1,
                        .seed = environment_.seed,
                        .rollouts_digest = digest_of(environment_, passed)},
                       passed);
        result.samples = shown_samples(environment_, problems, answers.mine, 1, false);
        result.rollouts = std::move(answers.mine);
        if (index + 1 == steps_) {
            timer.enter("select");
            finish(result.metrics);
        }
        timer.finish(result.metrics);
        return result;
    }

  private:
    [[nodiscard]] io::Path folder() const { return environment_.data_folder / environment_.stage; }

    std::vector<tasks::Problem> problems_of_step(std::int64_t index) {
        const std::int64_t begin = options_.first_prompt + index * options_.num_prompts_per_step;
        const std::int64_t end = std::min(begin + options_.num_prompts_per_step,
                                          options_.first_prompt + options_.num_prompts);
        const tasks::Dataset& train = *environment_.task.train;
        std::vector<tasks::Problem> problems;
        for (std::int64_t i = begin; i < end; ++i)
            problems.push_back(train.problem(order_.index(i, train.size(), environment_.seed)));
        return problems;
    }

    /// Why an answer is dropped: an index into reasons_, or nothing.
    [[nodiscard]] std::optional<std::size_t> reason_of(const Trajectory& trajectory) const {
        const auto score = [&](const std::string& name) {
            for (const Score& one : trajectory.scores) {
                if (one.name == name && one.status == ScoreStatus::ok) return one.value;
            }
            return -std::numeric_limits<double>::infinity();
        };
        if (!options_.keep_unfinished && trajectory.finish_reason != FinishReason::stop) return 0;
        if (score(trajectory.scores.front().name) < options_.min_score) return 1;
        const std::int64_t tokens = trajectory.answer_size();
        if (tokens < options_.min_tokens ||
            (options_.max_tokens > 0 && tokens > options_.max_tokens))
            return 2;
        for (std::size_t f = 0; f < options_.filter_min.size(); ++f) {
            if (score(reasons_[kOwnReasons + f]) < options_.filter_min[f]) return kOwnReasons + f;
        }
        return std::nullopt;
    }

    /// This rank's answers that pass; each knows how often its prompt was answered rightly.
    std::vector<Trajectory> filter(const Answers& answers, io::MetricLine& metrics) {
        std::vector<std::int64_t> dropped(reasons_.size(), 0);
        std::vector<Trajectory> passed;
        for (const Trajectory& trajectory : answers.mine) {
            if (const auto reason = reason_of(trajectory)) {
                ++dropped[*reason];
                continue;
            }
            const auto first =
                static_cast<std::size_t>(trajectory.group * options_.num_generations);
            std::int64_t right = 0;
            for (std::int64_t s = 0; s < options_.num_generations; ++s)
                right += answers.records[first + static_cast<std::size_t>(s)].right;
            passed.push_back(trajectory);
            passed.back().scores.push_back({.name = kRightRate,
                                            .value = static_cast<double>(right) /
                                                     static_cast<double>(options_.num_generations),
                                            .end = trajectory.answer_size()});
        }
        environment_.data().all_reduce_sum("dropped", dropped);
        for (std::size_t r = 0; r < reasons_.size(); ++r)
            metrics.emplace_back("dropped/" + reasons_[r], dropped[r]);
        metrics.emplace_back("candidates",
                             environment_.data().all_reduce_sum("candidates", std::ssize(passed)));
        return passed;
    }

    /// Selects among the candidates of all steps and writes what is kept. One rank reads the files:
    /// it is text, and little.
    void finish(io::MetricLine& metrics) {
        enum Count : std::size_t { kKept, kDuplicate, kOverPrompt, kOverTotal, kMixed, kCounts };
        std::vector<std::int64_t> counts(kCounts, 0);
        parallel::Communicator& world = environment_.mesh.world();
        if (world.rank() == 0) {
            std::vector<Trajectory> all;
            std::vector<Candidate> candidates;
            for (std::int64_t step = 1; step <= steps_; ++step) {
                io::Rollouts part =
                    io::read_rollouts(*environment_.files, folder() / io::step_name(step));
                std::sort(part.trajectories.begin(), part.trajectories.end(),
                          [](const Trajectory& a, const Trajectory& b) {
                              return std::pair(a.group, a.sample) < std::pair(b.group, b.sample);
                          });
                for (Trajectory& trajectory : part.trajectories) {
                    const auto answer = trajectory.answer();
                    candidates.push_back(
                        {.prompt = (step - 1) * options_.num_prompts_per_step + trajectory.group,
                         .sample = trajectory.sample,
                         .score = trajectory.scores.front().value,
                         .right_rate = trajectory.scores.back().value,
                         .content = xxh3_128(answer.data(), answer.size_bytes())});
                    all.push_back(std::move(trajectory));
                }
            }
            const Selection selection =
                select(candidates, {.max_per_prompt = options_.max_per_prompt,
                                    .best_first = options_.best_first,
                                    .max_kept = options_.max_kept});
            counts[kKept] = std::ssize(selection.kept);
            counts[kDuplicate] = selection.duplicates;
            counts[kOverPrompt] = selection.over_prompt;
            counts[kOverTotal] = selection.over_total;
            counts[kMixed] = write_rows(all, selection);
        }
        world.broadcast("kept", counts, 0);
        if (counts[kKept] == 0) refuse_nothing();
        metrics.emplace_back("kept", counts[kKept]);
        metrics.emplace_back("dropped/duplicate", counts[kDuplicate]);
        metrics.emplace_back("dropped/over_prompt", counts[kOverPrompt]);
        metrics.emplace_back("dropped/over_total", counts[kOverTotal]);
        metrics.emplace_back("mixed_in", counts[kMixed]);
    }

    /// @return rows of other data among them
    std::int64_t write_rows(std::span<const Trajectory> all, const Selection& selection) const {
        const text::Tokenizer& tokenizer = environment_.task.tokenizer;
        std::string text;
        std::int64_t rows = 0;
        const auto add = [&](std::span<const TokenId> prompt, std::span<const TokenId> completion,
                             const nlohmann::ordered_json& more) {
            nlohmann::ordered_json row{{"id", rows++},
                                       {"prompt", tokenizer.decode(prompt, true)},
                                       {"completion", tokenizer.decode(completion, true)},
                                       {"prompt_ids", prompt},
                                       {"completion_ids", completion}};
            row.update(more);
            text += row.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
        };
        for (const std::size_t i : selection.kept) {
            const Trajectory& trajectory = all[i];
            nlohmann::ordered_json more{{"prompt_id", trajectory.prompt_id},
                                        {"sample", trajectory.sample}};
            for (const Score& score : trajectory.scores) {
                if (score.status == ScoreStatus::ok) more["scores"][score.name] = score.value;
            }
            add(std::span(trajectory.tokens)
                    .first(static_cast<std::size_t>(trajectory.prompt_size())),
                trajectory.answer(), more);
        }
        const auto mixed = static_cast<std::int64_t>(
            std::ceil(options_.mix_demonstrations * static_cast<double>(selection.kept.size())));
        for (std::int64_t i = 0; i < mixed; ++i) {
            const tasks::Demonstration example = environment_.task.demonstrations->demonstration(
                i % environment_.task.demonstrations->size().value_or(mixed));
            add(example.prompt, example.response, {{"source", "demonstrations"}});
        }
        io::Path file = environment_.data_folder / (environment_.stage + ".jsonl");
        io::replace_file(*environment_.files, file, io::bytes_of(text));
        return mixed;
    }

    [[noreturn]] void refuse_nothing() {
        std::string prompts;
        const std::vector<tasks::Problem> first = problems_of_step(0);
        for (std::size_t i = 0; i < std::min(first.size(), kMostNamed); ++i)
            prompts += fmt::format("{}\"{}\"", i == 0 ? "" : ", ", first[i].prompt);
        throw BadNumbers(fmt::format(
            "stage {}: none of {} answers to {} prompts ({}{}) passed the filters, so there is "
            "nothing to learn from: see dropped/… in metrics.jsonl for the reasons; train the "
            "policy further, take easier prompts, or loosen min_score and filter_min",
            environment_.stage, options_.num_prompts * options_.num_generations,
            options_.num_prompts, prompts, first.size() > kMostNamed ? ", …" : ""));
    }

    const Environment& environment_;
    RejectOptions options_;
    const model::Weights& policy_;
    tasks::RewardSet judges_;
    rollout::Generator generator_;
    std::int64_t steps_;
    std::vector<std::string> reasons_{"unfinished", "score", "length"};  ///< then the filters
    EpochOrder order_;
};

}  // namespace

OptionList RejectOptions::options() {
    OptionList list;
    list.logical("num_prompts", &num_prompts, "prompts in all").at_least(1);
    list.logical("num_prompts_per_step", &num_prompts_per_step, "prompts a step").at_least(1);
    list.logical("num_generations", &num_generations, "answers to each prompt").at_least(1);
    list.logical("first_prompt", &first_prompt,
                 "training problem to begin at, so that stages need not share theirs")
        .at_least(0);
    sampling.declare(list);
    rewards.declare(list);
    list.logical("min_score", &min_score, "least value of the first reward that is kept");
    list.logical("filter_funcs", &filter_funcs,
                 "rewards that an answer must reach too: format, readable, repeated_tries, …");
    list.logical("filter_min", &filter_min, "least value of each of filter_funcs");
    list.logical("min_tokens", &min_tokens, "shorter answers are dropped").at_least(0);
    list.logical("max_tokens", &max_tokens, "longer answers are dropped; 0: no limit").at_least(0);
    list.logical("keep_unfinished", &keep_unfinished, "answers that were cut off may be kept");
    list.logical("max_per_prompt", &max_per_prompt, "most answers kept of a prompt").at_least(1);
    list.logical("best_first", &best_first,
                 "of a prompt's answers those of the highest first reward are kept, not the first");
    list.logical("max_kept", &max_kept,
                 "most answers kept in all, those of the hardest prompts; 0: no limit")
        .at_least(0);
    list.logical("mix_demonstrations", &mix_demonstrations,
                 "worked examples of the task mixed in, for each answer kept")
        .at_least(0);
    return list;
}

EvaluateOptions RejectOptions::measurement() const {
    EvaluateOptions options;
    options.sampling = sampling;
    options.rewards = rewards;
    return options;
}

std::vector<std::string> problems_of(const Environment& environment, const RejectOptions& options) {
    std::vector<std::string> problems = problems_of(options.rewards);
    if (environment.task.train == nullptr)
        problems.emplace_back("a reject stage needs problems: set [task] train");
    if (options.filter_funcs.size() != options.filter_min.size()) {
        problems.push_back(
            fmt::format("filter_funcs names {} filters, but filter_min has {} values",
                        options.filter_funcs.size(), options.filter_min.size()));
    }
    try {
        (void)judges_of(options);
    } catch (const BadInput& problem) {
        if (problems.empty()) problems.emplace_back(problem.what());
    }
    if (options.mix_demonstrations > 0 && environment.task.demonstrations == nullptr)
        problems.emplace_back("mix_demonstrations: the task has no worked examples");
    return problems;
}

std::unique_ptr<Stage> make_reject(const Environment& environment, const RejectOptions& options) {
    require_none(problems_of(environment, options));
    return std::make_unique<Reject>(environment, options);
}

}  // namespace rankwise::stages
