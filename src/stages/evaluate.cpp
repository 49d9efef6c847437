#include "src/stages/evaluate.hpp"

#include <algorithm>
#include <map>

#include "src/stages/interval.hpp"
#include "src/stages/rehearsal.hpp"
#include "src/tasks/difficulty.hpp"

namespace rankwise::stages {
namespace {

/// Steps of evaluations lie apart from those of training, so that their streams differ (N7).
constexpr std::uint32_t kEvaluationStep = 0xFFFFFFFFU;

/// Answers that are recorded for people: enough that one of them tells the story of a run.
constexpr std::int64_t kShownAnswers = 16;

std::vector<tasks::Problem> problems_asked(const Environment& environment,
                                           const EvaluateOptions& options) {
    const tasks::Dataset& held_out = *environment.task.held_out;
    std::int64_t count = held_out.size().value_or(options.problems);
    if (options.problems > 0) count = std::min(count, options.problems);
    std::vector<tasks::Problem> problems;
    for (std::int64_t i = 0; i < count; ++i) problems.push_back(held_out.problem(i));
    return problems;
}

bool majority_is_right(std::span<const AnswerRecord> group) {
    std::map<std::uint64_t, std::int64_t> votes;
    for (const AnswerRecord& record : group) ++votes[record.answer_hash];
    const AnswerRecord* winner = nullptr;
    std::int64_t most = 0;
    for (const AnswerRecord& record : group) {
        if (votes[record.answer_hash] > most) {
            most = votes[record.answer_hash];
            winner = &record;
        }
    }
    return winner != nullptr && winner->right != 0;
}

void append(io::MetricLine& metrics, const std::string& name,
            const std::optional<Interval>& interval) {
    if (!interval) return;
    metrics.emplace_back(name + kLow95, interval->low);
    metrics.emplace_back(name + kHigh95, interval->high);
}

/// Sums over each problem's k answers of a value of each answer.
template <class Value>
std::vector<double> sums_by_problem(std::size_t answers, std::size_t k, const Value& value) {
    std::vector<double> sums;
    for (std::size_t g = 0; g + k <= answers; g += k) {
        double sum = 0.0;
        for (std::size_t i = g; i < g + k; ++i) sum += value(i);
        sums.push_back(sum);
    }
    return sums;
}

/// Intervals of the mean length and of the behaviour counts, under the names that summarise() gives
/// them.
void append_behaviour_intervals(const Answers& answers, std::size_t k, io::MetricLine& metrics) {
    const std::size_t count = answers.records.size();
    const std::vector<double> each(count / k, static_cast<double>(k));
    const auto lengths = sums_by_problem(count, k, [&](std::size_t i) {
        return static_cast<double>(answers.records[i].answer_tokens);
    });
    append(metrics, "completions/mean_length", ratio_interval(lengths, each));
    const std::vector<std::string>& names = answers.behaviour_names;
    const auto sums_of = [&](std::string_view name) {
        const auto at =
            static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
        return sums_by_problem(count, k,
                               [&](std::size_t i) { return answers.behaviour[i].at(at).second; });
    };
    const auto shares = tasks::shares();
    for (const std::string& name : names) {
        const auto share = std::find_if(shares.begin(), shares.end(),
                                        [&](const tasks::Share& one) { return one.count == name; });
        if (share != shares.end()) {
            append(metrics, std::string(share->name),
                   share_interval(sums_of(name), sums_of(share->of)));
        } else if (name == "cut_off") {
            double cut = 0.0;
            for (const double sum : sums_of(name)) cut += sum;
            append(metrics, name,
                   wilson_interval(cut / static_cast<double>(count),
                                   static_cast<double>(each.size())));
        } else if (name == "tried_again" || name == "self_corrected") {
            append(metrics, name, share_interval(sums_of(name), each));
        } else {
            append(metrics, name, ratio_interval(sums_of(name), each));
        }
    }
}

class Evaluate final : public Stage {
  public:
    Evaluate(const Environment& environment, const EvaluateOptions& options)
        : environment_(environment),
          options_(options),
          rewards_(options.rewards.rewards()),
          generator_(make_generator(environment, environment.models.at("policy"))) {}
    [[nodiscard]] std::int64_t steps() const override { return 1; }
    void rehearse() override { rehearse_evaluation(environment_, options_, generator_); }
    StepResult step(std::int64_t index) override {
        PhaseTimer timer(environment_, index);
        EvaluationResult result = evaluate(environment_, options_, generator_, rewards_, timer);
        StepResult out;
        out.rollouts_digest = digest_of(environment_, result.rollouts);
        out.rollouts = std::move(result.rollouts);
        out.evaluations.push_back({index + 1, std::move(result.metrics)});
        out.samples = std::move(result.samples);
        timer.finish(out.metrics);
        return out;
    }

  private:
    const Environment& environment_;
    EvaluateOptions options_;
    tasks::RewardSet rewards_;
    rollout::Generator generator_;
};

}  // namespace

void EvaluateOptions::declare(OptionList& list, const std::string& prefix) {
    list.logical(prefix + "problems", &problems, "held-out problems to evaluate on; 0: all")
        .at_least(0);
    list.logical(prefix + "samples", &samples, "answers to each problem (k of pass@k and cons@k)")
        .at_least(1);
    sampling.declare(list, prefix);
}

OptionList EvaluateOptions::options() {
    OptionList list;
    declare(list);
    rewards.declare(list);
    return list;
}

EvaluationResult evaluate(const Environment& environment, const EvaluateOptions& options,
                          rollout::Generator& generator, tasks::RewardSet& rewards,
                          PhaseTimer& timer) {
    timer.enter("evaluate");
    const std::vector<tasks::Problem> problems = problems_asked(environment, options);
    Answers answers = generate_answers(environment, generator, problems,
                                       narrow<std::int32_t>(options.samples), kEvaluationStep,
                                       options.sampling.sampling(environment), rewards, 0, timer);
    const auto k = static_cast<std::size_t>(options.samples);
    std::vector<double> pass_1;
    std::vector<double> pass_k;
    std::vector<double> consensus;
    std::vector<double> finished_format;
    std::array<std::vector<double>, tasks::kDifficulties.size()> by_difficulty;
    double problems_finished = 0.0;
    const auto format_at =
        std::find(answers.score_names.begin(), answers.score_names.end(), "format") -
        answers.score_names.begin();
    const bool has_format = format_at < std::ssize(answers.score_names);
    for (std::size_t g = 0; g + k <= answers.records.size(); g += k) {
        const auto group = std::span(answers.records).subspan(g, k);
        std::int64_t right = 0;
        const std::size_t finished_before = finished_format.size();
        for (std::size_t s = 0; s < k; ++s) {
            right += group[s].right;
            if (has_format &&
                group[s].finish_reason == static_cast<std::int64_t>(FinishReason::stop)) {
                finished_format.push_back(answers.scores[(g + s) * answers.score_names.size() +
                                                         static_cast<std::size_t>(format_at)]);
            }
        }
        pass_1.push_back(static_cast<double>(right) / static_cast<double>(k));
        problems_finished += finished_format.size() > finished_before ? 1.0 : 0.0;
        const std::int64_t difficulty = group.front().difficulty;
        if (difficulty >= 0)
            by_difficulty[static_cast<std::size_t>(difficulty)].push_back(pass_1.back());
        pass_k.push_back(right > 0 ? 1.0 : 0.0);
        consensus.push_back(majority_is_right(group) ? 1.0 : 0.0);
    }
    EvaluationResult out;
    out.metrics.emplace_back("eval/pass@1", mean_of(pass_1));
    if (k > 1) {
        out.metrics.emplace_back(fmt::format("eval/pass@{}", k), mean_of(pass_k));
        out.metrics.emplace_back(fmt::format("eval/cons@{}", k), mean_of(consensus));
    }
    if (has_format) out.metrics.emplace_back("eval/format_of_finished", mean_of(finished_format));
    for (std::size_t d = 0; d < by_difficulty.size(); ++d) {
        if (by_difficulty[d].empty()) continue;
        const std::string_view name = tasks::kDifficulties[d];
        out.metrics.emplace_back(fmt::format("eval/pass@1/{}", name), mean_of(by_difficulty[d]));
        out.metrics.emplace_back(fmt::format("eval/problems/{}", name),
                                 std::ssize(by_difficulty[d]));
    }
    io::MetricLine others;
    append_answer_metrics(answers, options.samples, others);
    const std::vector<double> one_each(pass_1.size(), 1.0);
    const auto groups = static_cast<double>(pass_1.size());
    append(others, "pass@1", share_interval(pass_1, one_each));
    if (k > 1) {
        append(others, fmt::format("pass@{}", k), wilson_interval(mean_of(pass_k), groups));
        append(others, fmt::format("cons@{}", k), wilson_interval(mean_of(consensus), groups));
    }
    append(others, "format_of_finished",
           wilson_interval(mean_of(finished_format), problems_finished));
    append_behaviour_intervals(answers, k, others);
    for (auto& [name, value] : others) out.metrics.emplace_back("eval/" + name, value);
    out.samples = shown_samples(environment, problems, answers.mine, kShownAnswers, true);
    out.rollouts = std::move(answers.mine);
    return out;
}

void rehearse_evaluation(const Environment& environment, const EvaluateOptions& options,
                         rollout::Generator& generator) {
    rehearse_generation(environment, generator, problems_asked(environment, options),
                        options.samples, options.sampling.sampling(environment), "evaluate");
}

std::vector<std::string> problems_of(const Environment& environment,
                                     const EvaluateOptions& options) {
    std::vector<std::string> problems = problems_of(options.rewards);
    if (environment.task.held_out == nullptr) {
        problems.emplace_back("an evaluation needs held-out problems: set [task] evaluation");
    }
    return problems;
}

std::unique_ptr<Stage> make_evaluate(const Environment& environment,
                                     const EvaluateOptions& options) {
    require_none(problems_of(environment, options));
    return std::make_unique<Evaluate>(environment, options);
}

}  // namespace rankwise::stages
