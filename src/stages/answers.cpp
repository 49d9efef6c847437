#include "src/stages/answers.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <deque>
#include <map>
#include <numeric>

#include "src/tasks/difficulty.hpp"

namespace rankwise::stages {
namespace {

/// The final answer as a vote counts it: what stands between the answer tags, without spaces; else
/// the whole text.
std::uint64_t answer_hash(const std::string& text) {
    const tasks::Tagged tagged = tasks::parse_tags(text);
    std::string essence(tagged.well_formed ? tagged.answer : std::string_view(text));
    std::erase(essence, ' ');
    return xxh3_128(essence.data(), essence.size()).low;
}

bool is_right(const Trajectory& trajectory) {
    return !trajectory.scores.empty() && trajectory.scores.front().status == ScoreStatus::ok &&
           trajectory.scores.front().value >= 1.0;
}

/// Whether all problems are of one task.
bool of_one_task(std::span<const tasks::Problem> problems) {
    return std::all_of(problems.begin(), problems.end(), [&](const tasks::Problem& problem) {
        return problem.task == problems.front().task;
    });
}

std::int64_t bin_of(const tasks::Problem& problem) {
    const auto difficulty = tasks::difficulty_of(problem);
    return difficulty ? static_cast<std::int64_t>(*difficulty) : -1;
}

/// Judges answers while others are still being generated: each is handed to the scorers as it ends.
class Judge {
  public:
    Judge(const Environment& environment, std::span<const tasks::Problem> problems,
          tasks::RewardSet& rewards)
        : environment_(environment),
          problems_(problems),
          rewards_(rewards),
          of_one_task_(of_one_task(problems)) {}

    /// What is counted of an answer: where tasks are mixed, only what all of them have.
    [[nodiscard]] tasks::Counts counts_of(const tasks::Problem& problem,
                                          const tasks::Answer& answer) const {
        return of_one_task_ ? tasks::behaviour(problem, answer)
                            : tasks::text_behaviour(problem, answer);
    }

    void submit(const Trajectory& trajectory) {
        // Of its own: scorers read it until it is collected, and the generator moves what it has.
        const Trajectory& kept = kept_.emplace_back(trajectory);
        const tasks::ScoreRequest request{
            .problem = &problem_of(kept), .answer = answer_of(kept), .sample = kept.sample};
        tickets_[place(kept)] = rewards_.submit(std::span(&request, 1));
    }

    /// Scores and reward of each trajectory, and its behaviour, in their order. Waits for scorers.
    void collect(std::vector<Trajectory>& trajectories, std::vector<tasks::Counts>& behaviour,
                 std::vector<double>& scores) {
        for (Trajectory& trajectory : trajectories) {
            behaviour.push_back(counts_of(problem_of(trajectory), answer_of(trajectory)));
            tasks::Judgement judgement =
                std::move(rewards_.collect(tickets_.at(place(trajectory))).front());
            trajectory.scores = std::move(judgement.scores);
            trajectory.reward = judgement.reward;
            for (const Score& score : trajectory.scores) {
                scores.push_back(score.status == ScoreStatus::ok ? score.value : 0.0);
            }
        }
    }

  private:
    static std::pair<std::int64_t, std::int32_t> place(const Trajectory& trajectory) {
        return {trajectory.group, trajectory.sample};
    }
    [[nodiscard]] const tasks::Problem& problem_of(const Trajectory& trajectory) const {
        return problems_[static_cast<std::size_t>(trajectory.group)];
    }
    [[nodiscard]] tasks::Answer answer_of(const Trajectory& trajectory) const {
        return tasks::answer_of(trajectory, &environment_.task.tokenizer);
    }

    const Environment& environment_;
    std::span<const tasks::Problem> problems_;
    tasks::RewardSet& rewards_;
    bool of_one_task_;
    std::deque<Trajectory> kept_;
    std::map<std::pair<std::int64_t, std::int32_t>, tasks::Ticket> tickets_;
};

}  // namespace

rollout::Generator make_generator(const Environment& environment, const model::Weights& policy) {
    return {environment.compute, policy, environment.generator_options(),
            &environment.task.tokenizer, environment.task.tokenizer.vocab_size()};
}

std::vector<rollout::Request> requests_of(const Environment& environment,
                                          std::span<const tasks::Problem> problems,
                                          std::int32_t samples, std::uint32_t step) {
    std::vector<rollout::Request> requests;
    for (std::size_t i = 0; i < problems.size(); ++i) {
        requests.push_back({.prompt_id = problems[i].id,
                            .group = static_cast<std::int64_t>(i),
                            .samples = samples,
                            .step = step,
                            .prompt = environment.task.prompt_ids(problems[i])});
    }
    return requests;
}

double mean_of(std::span<const double> values) {
    if (values.empty()) return 0.0;
    double sum = 0.0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
}

Answers generate_answers(const Environment& environment, rollout::Generator& generator,
                         std::span<const tasks::Problem> problems, std::int32_t samples,
                         std::uint32_t step, const rollout::SamplingOptions& sampling,
                         tasks::RewardSet& rewards, std::int64_t policy_version,
                         PhaseTimer& timer) {
    parallel::Communicator& data = environment.data();
    const std::vector<rollout::Request> requests =
        requests_of(environment, problems, samples, step);
    Answers answers;
    const rollout::GeneratorCounts before = generator.counts();
    rollout::DealtWork dealt(requests, data, environment.physical.deal_interval);
    parallel::Communicator* const pipeline = environment.pipeline().axis;
    rollout::GroupWork work(dealt, environment.mesh.axis(parallel::Axis::tensor), pipeline);
    Judge judge(environment, problems, rewards);
    answers.mine = generator.run(
        requests, sampling, work, policy_version,
        {.finished = [&](const Trajectory& trajectory) { judge.submit(trajectory); }});
    answers.counts = generator.counts();
    answers.counts.decode_rows -= before.decode_rows;
    answers.counts.decode_steps -= before.decode_steps;
    answers.counts.prefill_rows -= before.prefill_rows;
    answers.counts.prompts_shared -= before.prompts_shared;

    timer.enter("score");
    std::vector<tasks::Counts> own_behaviour;
    std::vector<double> own_scores;
    judge.collect(answers.mine, own_behaviour, own_scores);
    answers.score_names = rewards.names();
    std::vector<AnswerRecord> own;
    for (const Trajectory& trajectory : answers.mine) {
        own.push_back({.group = trajectory.group,
                       .sample = trajectory.sample,
                       .rank = data.rank(),
                       .prompt_tokens = trajectory.prompt_size(),
                       .answer_tokens = trajectory.answer_size(),
                       .finish_reason = static_cast<std::int64_t>(trajectory.finish_reason),
                       .right = is_right(trajectory) ? 1 : 0,
                       .difficulty = bin_of(problems[static_cast<std::size_t>(trajectory.group)]),
                       .answer_hash = answer_hash(trajectory.text),
                       .reward = trajectory.reward});
    }
    // Counts have the same names everywhere; a rank without answers learns only the values.
    std::vector<double> own_counts;
    for (const tasks::Counts& counts : own_behaviour) {
        for (const auto& count : counts) own_counts.push_back(count.second);
    }
    const std::vector<AnswerRecord> gathered = data.all_gather_v("answers", own).values;
    const std::vector<double> gathered_scores = data.all_gather_v("answers", own_scores).values;
    const std::vector<double> gathered_counts = data.all_gather_v("answers", own_counts).values;
    std::vector<std::size_t> order(gathered.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return std::pair(gathered[a].group, gathered[a].sample) <
               std::pair(gathered[b].group, gathered[b].sample);
    });
    if (!gathered.empty()) {
        tasks::Answer nothing;
        for (const auto& count : judge.counts_of(problems.front(), nothing)) {
            answers.behaviour_names.push_back(count.first);
        }
    }
    const std::size_t scores = answers.score_names.size();
    const std::size_t counts = answers.behaviour_names.size();
    for (const std::size_t from : order) {
        answers.records.push_back(gathered[from]);
        for (std::size_t s = 0; s < scores; ++s)
            answers.scores.push_back(gathered_scores[from * scores + s]);
        tasks::Counts& row = answers.behaviour.emplace_back();
        for (std::size_t c = 0; c < counts; ++c) {
            row.emplace_back(answers.behaviour_names[c], gathered_counts[from * counts + c]);
        }
    }
    return answers;
}

UInt128 digest_of(const Environment& environment, std::span<const Trajectory> mine) {
    UInt128 sum;
    for (const Trajectory& trajectory : mine) {
        std::vector<std::uint64_t> words{trajectory.prompt_id,
                                         static_cast<std::uint64_t>(trajectory.group),
                                         static_cast<std::uint64_t>(trajectory.sample),
                                         static_cast<std::uint64_t>(trajectory.finish_reason),
                                         std::bit_cast<std::uint64_t>(trajectory.reward),
                                         std::bit_cast<std::uint64_t>(trajectory.advantage)};
        for (const Score& score : trajectory.scores)
            words.push_back(std::bit_cast<std::uint64_t>(score.value));
        for (std::size_t t = 0; t < trajectory.tokens.size(); ++t) {
            words.push_back(
                (static_cast<std::uint64_t>(static_cast<std::uint32_t>(trajectory.tokens[t]))
                 << 32U) |
                std::bit_cast<std::uint32_t>(trajectory.logprobs[t]));
        }
        sum += xxh3_128(words.data(), words.size() * sizeof(std::uint64_t));
    }
    return environment.data().all_reduce_sum("rollouts digest", sum);
}

void append_answer_metrics(const Answers& answers, std::int64_t group_size,
                           io::MetricLine& metrics) {
    const std::size_t count = answers.records.size();
    std::vector<double> rewards;
    std::vector<double> lengths;
    std::vector<double> finished_lengths;
    std::vector<std::int64_t> prompts;
    std::int64_t cut = 0;
    for (const AnswerRecord& record : answers.records) {
        rewards.push_back(record.reward);
        lengths.push_back(static_cast<double>(record.answer_tokens));
        prompts.push_back(record.prompt_tokens);
        const bool finished = record.finish_reason == static_cast<std::int64_t>(FinishReason::stop);
        if (finished) finished_lengths.push_back(static_cast<double>(record.answer_tokens));
        cut += finished ? 0 : 1;
    }
    metrics.emplace_back("reward", mean_of(rewards));
    if (group_size > 1 && count > 0) {
        std::vector<double> deviations;
        std::int64_t equal = 0;
        for (std::size_t g = 0; g + static_cast<std::size_t>(group_size) <= count;
             g += static_cast<std::size_t>(group_size)) {
            const auto some = std::span(rewards).subspan(g, static_cast<std::size_t>(group_size));
            const double mean = mean_of(some);
            double squares = 0.0;
            for (const double reward : some) squares += (reward - mean) * (reward - mean);
            const bool same =
                std::all_of(some.begin(), some.end(), [&](double r) { return r == some[0]; });
            deviations.push_back(same ? 0.0
                                      : std::sqrt(squares / static_cast<double>(group_size - 1)));
            equal += same ? 1 : 0;
        }
        metrics.emplace_back("reward_std", mean_of(deviations));
        metrics.emplace_back("frac_reward_zero_std",
                             static_cast<double>(equal) / static_cast<double>(deviations.size()));
    }
    const std::size_t names = answers.score_names.size();
    for (std::size_t s = 0; s < names; ++s) {
        std::vector<double> values;
        for (std::size_t i = 0; i < count; ++i) values.push_back(answers.scores[i * names + s]);
        metrics.emplace_back("rewards/" + answers.score_names[s] + "/mean", mean_of(values));
    }
    if (count > 0) {
        metrics.emplace_back("prompts/min_length",
                             *std::min_element(prompts.begin(), prompts.end()));
        metrics.emplace_back("prompts/max_length",
                             *std::max_element(prompts.begin(), prompts.end()));
        metrics.emplace_back("completions/mean_length", mean_of(lengths));
        metrics.emplace_back("completions/min_length",
                             *std::min_element(lengths.begin(), lengths.end()));
        metrics.emplace_back("completions/max_length",
                             *std::max_element(lengths.begin(), lengths.end()));
        metrics.emplace_back("completions/mean_terminated_length", mean_of(finished_lengths));
        metrics.emplace_back("completions/clipped_ratio",
                             static_cast<double>(cut) / static_cast<double>(count));
    }
    for (std::size_t d = 0; d < tasks::kDifficulties.size(); ++d) {
        std::vector<double> some;
        for (const AnswerRecord& record : answers.records) {
            if (record.difficulty == static_cast<std::int64_t>(d))
                some.push_back(static_cast<double>(record.answer_tokens));
        }
        if (some.empty()) continue;
        metrics.emplace_back(fmt::format("completions/mean_length/{}", tasks::kDifficulties[d]),
                             mean_of(some));
    }
    for (const auto& [name, value] : tasks::summarise(answers.behaviour))
        metrics.emplace_back(name, value);
}

std::vector<ShownSample> shown_samples(const Environment& environment,
                                       std::span<const tasks::Problem> problems,
                                       std::span<const Trajectory> mine, std::int64_t groups,
                                       bool evaluation) {
    // Each answer as words: group, reward, right, size, tokens.
    std::vector<std::int64_t> words;
    for (const Trajectory& trajectory : mine) {
        if (trajectory.sample != 0 || trajectory.group >= groups) continue;
        words.push_back(trajectory.group);
        words.push_back(std::bit_cast<std::int64_t>(trajectory.reward));
        words.push_back(is_right(trajectory) ? 1 : 0);
        words.push_back(trajectory.answer_size());
        words.insert(words.end(), trajectory.answer().begin(), trajectory.answer().end());
    }
    const std::vector<std::int64_t> all = environment.data().gather_v("samples", words, 0).values;
    std::map<std::int64_t, ShownSample> by_group;
    for (std::size_t at = 0; at < all.size();) {
        const std::int64_t group = all[at];
        const auto size = static_cast<std::size_t>(all[at + 3]);
        const auto tokens = std::span(all).subspan(at + 4, size);
        const std::vector<TokenId> ids(tokens.begin(), tokens.end());
        by_group[group] = {.prompt = problems[static_cast<std::size_t>(group)].prompt,
                           .answer = environment.task.tokenizer.decode(ids),
                           .reward = std::bit_cast<double>(all[at + 1]),
                           .right = all[at + 2] != 0,
                           .evaluation = evaluation};
        at += 4 + size;
    }
    std::vector<ShownSample> shown;
    shown.reserve(by_group.size());
    for (auto& [group, sample] : by_group) shown.push_back(std::move(sample));
    return shown;
}

}  // namespace rankwise::stages
