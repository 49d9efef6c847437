// What a recipe says of a `grpo` stage, and what does not go together.
#include "src/stages/grpo.hpp"

namespace rankwise::stages {

OptionList GrpoOptions::options() {
    OptionList list;
    list.logical("steps", &steps, "steps of generation and update").at_least(0);
    list.logical("num_prompts_per_step", &num_prompts_per_step, "prompts a step").at_least(1);
    list.logical("num_generations", &num_generations, "answers to each prompt (the group)")
        .at_least(2);
    list.logical("first_prompt", &first_prompt,
                 "training problem to begin at, so that stages need not share theirs")
        .at_least(0);
    list.logical("num_minibatches", &num_minibatches, "updates in a pass over a step's answers")
        .at_least(1);
    list.logical("num_iterations", &num_iterations, "passes over a step's answers").at_least(1);
    sampling.declare(list);
    rewards.declare(list);
    optimizer.declare(list);
    list.logical("loss_type", &loss_type, "which loss of the family")
        .one_of(update::loss_type_names());
    list.logical("importance_sampling_level", &importance_sampling_level,
                 "one ratio a token, or a sample (GSPO)")
        .one_of({"token", "sequence"});
    list.logical("scale_rewards", &scale_rewards,
                 "what advantages are divided by: a standard deviation, or nothing")
        .one_of({"group", "batch", "none"});
    list.logical("epsilon", &epsilon, "ratios below 1 - epsilon are clipped").at_least(0);
    list.logical("epsilon_high", &epsilon_high,
                 "ratios above 1 + epsilon_high are clipped (cispo: the cap itself)")
        .at_least(0);
    list.logical("delta", &delta, "ratios count as at most this (dual clip); 0: no cap")
        .at_least(0);
    list.logical("beta", &beta, "weight of the KL divergence from the reference; 0: no reference")
        .at_least(0);
    list.logical("use_bias_correction_kl", &use_bias_correction_kl,
                 "the KL estimate is multiplied by the ratio");
    list.logical("sapo_temperature_pos", &sapo_temperature_pos,
                 "sapo: steepness for positive advantages");
    list.logical("sapo_temperature_neg", &sapo_temperature_neg,
                 "sapo: steepness for negative advantages");
    list.logical("ref_model_sync_steps", &ref_model_sync_steps,
                 "the reference becomes the policy every so many steps; 0: never")
        .at_least(0);
    list.logical("mask_truncated_completions", &mask_truncated_completions,
                 "answers that were cut off do not count in the loss");
    list.logical("dynamic_sampling", &dynamic_sampling,
                 "groups of equal rewards are replaced by new prompts");
    list.logical("max_sampling_rounds", &max_sampling_rounds,
                 "dynamic_sampling: rounds of prompts before giving up")
        .at_least(1);
    list.logical("eval_steps", &eval_steps,
                 "evaluate every so many steps, and first and last; 0: never")
        .at_least(0);
    evaluation.declare(list, "eval_");
    return list;
}

update::PolicyLossSettings GrpoOptions::loss() const {
    update::PolicyLossSettings settings{.type = update::loss_type(loss_type),
                                        .sequence_ratio = importance_sampling_level == "sequence",
                                        .epsilon = epsilon,
                                        .epsilon_high = epsilon_high,
                                        .beta = beta,
                                        .kl_bias_correction = use_bias_correction_kl,
                                        .sapo_temperature_pos = sapo_temperature_pos,
                                        .sapo_temperature_neg = sapo_temperature_neg};
    if (delta > 0.0) settings.delta = delta;
    return settings;
}

std::vector<std::string> problems_of(const Environment& environment, const GrpoOptions& options) {
    std::vector<std::string> problems = problems_of(options.rewards);
    if (environment.task.train == nullptr)
        problems.emplace_back("a grpo stage needs problems: set [task] train");
    if (options.num_prompts_per_step % options.num_minibatches != 0) {
        problems.push_back(fmt::format("num_minibatches {} does not divide num_prompts_per_step {}",
                                       options.num_minibatches, options.num_prompts_per_step));
    }
    if (options.eval_steps > 0 && environment.task.held_out == nullptr)
        problems.emplace_back("eval_steps needs held-out problems: set [task] evaluation");
    return problems;
}

}  // namespace rankwise::stages
