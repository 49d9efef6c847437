// Stage `evaluate`, and the measurement that other stages make every n steps.
#pragma once

#include "src/stages/answers.hpp"
#include "src/stages/sampling_options.hpp"

namespace rankwise::stages {

struct EvaluateOptions {
    std::int64_t problems = 0;  ///< of the held-out set; 0: all
    std::int64_t samples = 1;   ///< k answers a problem
    SamplingSection sampling;
    RewardSection rewards;

    /// @param prefix  of the keys, where another stage holds these options ("eval_")
    void declare(OptionList& list, const std::string& prefix = "");
    [[nodiscard]] OptionList options();
    /// How a stage with these options measures a model.
    [[nodiscard]] EvaluateOptions measurement() const { return *this; }
};

/// Metrics of an evaluation; all begin with eval/.
///   pass@1            mean over problems of the share of right answers
///   pass@k, cons@k    share of problems with a right answer among k = `samples`; … whose most
///                     frequent final answer is right (of equally frequent ones the earliest)
///   format_of_finished    well-formed ones among the answers that ended by themselves
///   pass@1/DIFFICULTY, problems/DIFFICULTY    of the problems of each bin (tasks/difficulty.hpp)
///   reward, completions/…, cut_off, tries, …  as in training (answers.hpp, tasks/behaviour.hpp)
///   NAME/ci95_low, NAME/ci95_high    95 % intervals over problems (interval.hpp): of pass@1,
///                     tried_again, self_corrected and the rates as share_interval; of
///                     completions/mean_length and the other counts as ratio_interval; of pass@k,
///                     cons@k, format_of_finished and cut_off as wilson_interval with a problem a
///                     trial (too wide rather than too narrow where there are several answers)
/// Draws nothing from the training streams.
struct EvaluationResult {
    io::MetricLine metrics;
    std::vector<ShownSample> samples;
    std::vector<Trajectory> rollouts;
};
/// @param generator  of the policy that is measured; its cache is used
EvaluationResult evaluate(const Environment& environment, const EvaluateOptions& options,
                          rollout::Generator& generator, tasks::RewardSet& rewards,
                          PhaseTimer& timer);

/// What evaluate() takes at most, for planning (Stage::rehearse).
void rehearse_evaluation(const Environment& environment, const EvaluateOptions& options,
                         rollout::Generator& generator);

/// @throws BadInput with the first of problems_of().
[[nodiscard]] std::unique_ptr<Stage> make_evaluate(const Environment& environment,
                                                   const EvaluateOptions& options);

/// What the options lack or contradict, a line each.
[[nodiscard]] std::vector<std::string> problems_of(const Environment& environment,
                                                   const EvaluateOptions& options);

}  // namespace rankwise::stages
