// Generating and judging a step's answers over the data axis.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "src/stages/stage.hpp"
#include "src/tasks/behaviour.hpp"
#include "src/tasks/scorer.hpp"

namespace rankwise::stages {

/// What every rank knows of every answer: no tokens.
struct AnswerRecord {
    std::int64_t group = 0;
    std::int64_t sample = 0;
    std::int64_t rank = 0;  ///< data rank that generated it
    std::int64_t prompt_tokens = 0;
    std::int64_t answer_tokens = 0;
    std::int64_t finish_reason = 0;
    std::int64_t right = 0;         ///< the first reward is at least 1
    std::int64_t difficulty = -1;   ///< of the problem: an index into kDifficulties; -1: none
    std::uint64_t answer_hash = 0;  ///< of the final answer's text, for majority votes
    double reward = 0.0;
};

/// The answers of one phase.
struct Answers {
    std::vector<Trajectory> mine;       ///< generated here, scored; canonical order
    std::vector<AnswerRecord> records;  ///< of all ranks, canonical order (group, sample)
    std::vector<std::string> score_names;
    std::vector<double> scores;  ///< [records, score_names]; 0 where the status is not ok
    std::vector<std::string> behaviour_names;
    std::vector<tasks::Counts> behaviour;  ///< of all records
    rollout::GeneratorCounts counts;       ///< of this rank
};

/// A generator of the run's kind.
[[nodiscard]] rollout::Generator make_generator(const Environment& environment,
                                                const model::Weights& policy);

/// What is asked of the generator: `samples` answers to each problem, in their order.
[[nodiscard]] std::vector<rollout::Request> requests_of(const Environment& environment,
                                                        std::span<const tasks::Problem> problems,
                                                        std::int32_t samples, std::uint32_t step);

/// Asks for `samples` answers to each problem. Collective over the data axis.
/// @param step    step in which the problems were drawn (N7)
Answers generate_answers(const Environment& environment, rollout::Generator& generator,
                         std::span<const tasks::Problem> problems, std::int32_t samples,
                         std::uint32_t step, const rollout::SamplingOptions& sampling,
                         tasks::RewardSet& rewards, std::int64_t policy_version, PhaseTimer& timer);

/// Sum modulo 2^128 over the data axis of the XXH3-128 of each trajectory's contents. Collective.
[[nodiscard]] UInt128 digest_of(const Environment& environment, std::span<const Trajectory> mine);

/// Mean of values in their order, in double; 0 for none.
[[nodiscard]] double mean_of(std::span<const double> values);

/// reward, reward_std, rewards/NAME/mean, completions/…, completions/mean_length/DIFFICULTY (of
/// those that were asked), and the behaviour counts (NUMERICS N8: sums in canonical order).
void append_answer_metrics(const Answers& answers, std::int64_t group_size,
                           io::MetricLine& metrics);

/// Answers for people: sample 0 of the first `groups` problems, on data rank 0 (elsewhere none).
/// Collective.
[[nodiscard]] std::vector<ShownSample> shown_samples(const Environment& environment,
                                                     std::span<const tasks::Problem> problems,
                                                     std::span<const Trajectory> mine,
                                                     std::int64_t groups, bool evaluation);

}  // namespace rankwise::stages
