// Stage `grpo`: group-relative policy optimisation with rewards that can be checked (DeepSeekMath
// 2024, DeepSeek-R1 2025).
#pragma once

#include "src/stages/evaluate.hpp"
#include "src/update/policy_loss.hpp"

namespace rankwise::stages {

struct GrpoOptions {
    std::int64_t steps = 100;
    std::int64_t num_prompts_per_step = 16;
    std::int64_t num_generations = 16;
    std::int64_t first_prompt = 0;     ///< place among the training problems where the stage begins
    std::int64_t num_minibatches = 1;  ///< updates a pass over the step's answers
    std::int64_t num_iterations = 1;   ///< passes
    SamplingSection sampling;
    RewardSection rewards;
    OptimizerSection optimizer;
    std::string loss_type = "dapo";
    std::string importance_sampling_level = "token";
    std::string scale_rewards = "group";
    double epsilon = 0.2;
    double epsilon_high = 0.2;
    double delta = 0.0;  ///< 0: no dual clip
    double beta = 0.0;
    bool use_bias_correction_kl = true;
    double sapo_temperature_pos = 1.0;
    double sapo_temperature_neg = 1.05;
    std::int64_t ref_model_sync_steps = 0;    ///< 0: the reference stays the stage's first policy
    bool mask_truncated_completions = false;  ///< DAPO's overlong filtering
    bool dynamic_sampling = false;            ///< DAPO: groups of equal rewards are replaced
    std::int64_t max_sampling_rounds = 8;
    std::int64_t eval_steps = 0;
    EvaluateOptions evaluation;

    [[nodiscard]] OptionList options();
    [[nodiscard]] update::PolicyLossSettings loss() const;
    /// Held-out problems are judged by the rewards of the stage.
    [[nodiscard]] EvaluateOptions measurement() const {
        EvaluateOptions own = evaluation;
        own.rewards = rewards;
        return own;
    }
};

/// A step: draw prompts, generate a group of answers to each, judge them, advantages, update,
/// record.
///
/// Minibatches hold whole groups; which, is drawn anew in each pass (purpose minibatch_split). A
/// sample whose advantage is 0 adds nothing to the loss while beta is 0, and is then not computed;
/// it counts in every normaliser all the same. In the first minibatch of fresh answers the
/// log-probabilities must be the sampler's, bit for bit (exit code 5 if not).
/// @throws BadInput with the first of problems_of().
[[nodiscard]] std::unique_ptr<Stage> make_grpo(const Environment& environment,
                                               const GrpoOptions& options);

/// What the options lack or contradict, a line each.
[[nodiscard]] std::vector<std::string> problems_of(const Environment& environment,
                                                   const GrpoOptions& options);

}  // namespace rankwise::stages
