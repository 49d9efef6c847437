#include "src/stages/sampling_options.hpp"

namespace rankwise::stages {

void SamplingSection::declare(OptionList& list, const std::string& prefix) {
    list.logical(prefix + "temperature", &temperature,
                 "sampling temperature; 0: the most likely token")
        .at_least(0);
    list.logical(prefix + "top_k", &top_k, "sample among this many most likely tokens; 0: all")
        .at_least(0);
    list.logical(prefix + "top_p", &top_p,
                 "sample among the most likely tokens with this total probability")
        .at_least(0)
        .at_most(1);
    list.logical(prefix + "min_p", &min_p,
                 "drop tokens less likely than this share of the most likely one")
        .at_least(0)
        .at_most(1);
    list.logical(prefix + "max_completion_length", &max_completion_length,
                 "most tokens of an answer")
        .at_least(1);
    list.logical(prefix + "stop_strings", &stop_strings,
                 "texts that end an answer, separated by commas");
}

rollout::SamplingOptions SamplingSection::sampling(const Environment& environment) const {
    const std::span<const TokenId> stop = environment.task.tokenizer.eos_ids();
    return {.temperature = temperature,
            .top_k = top_k,
            .top_p = top_p,
            .min_p = min_p,
            .max_new_tokens = max_completion_length,
            .stop_ids = {stop.begin(), stop.end()},
            .stop_strings = stop_strings,
            .seed = environment.seed};
}

void RewardSection::declare(OptionList& list) {
    list.logical("reward_funcs", &reward_funcs,
                 "rewards by name; the first says whether an answer is right");
    list.logical("reward_weights", &reward_weights, "their weights; empty: 1 each");
}

tasks::RewardSet RewardSection::rewards() const {
    return tasks::make_reward_set(reward_funcs, reward_weights);
}

std::vector<std::string> problems_of(const RewardSection& rewards) {
    try {
        (void)rewards.rewards();
    } catch (const BadInput& problem) {
        return {problem.what()};
    }
    return {};
}

void require_none(const std::vector<std::string>& problems) {
    if (!problems.empty()) throw BadInput(problems.front());
}

void OptimizerSection::declare(OptionList& list) {
    list.logical("learning_rate", &learning_rate, "AdamW's learning rate at its highest")
        .at_least(0);
    list.logical("lr_scheduler_type", &lr_scheduler_type, "how the learning rate changes")
        .one_of(update::schedule_names());
    list.logical("warmup_steps", &warmup_steps, "optimizer steps in which the learning rate rises")
        .at_least(0);
    list.logical("min_lr_ratio", &min_lr_ratio, "share of learning_rate at the end")
        .at_least(0)
        .at_most(1);
    list.logical("decay_steps", &decay_steps, "warmup_stable_decay: optimizer steps of the decay")
        .at_least(0);
    list.logical("adam_beta1", &adam_beta1, "decay of the first moment").at_least(0).at_most(1);
    list.logical("adam_beta2", &adam_beta2, "decay of the second moment").at_least(0).at_most(1);
    list.logical("adam_epsilon", &adam_epsilon, "added to the root of the second moment")
        .at_least(0);
    list.logical("weight_decay", &weight_decay, "decoupled decay of matrices").at_least(0);
    list.logical("max_grad_norm", &max_grad_norm,
                 "gradients are scaled down to this norm; 0: never")
        .at_least(0);
    list.logical("router_bias_rate", &router_bias_rate,
                 "DeepSeek-V3: how far an expert's bias moves after each update if it got fewer or "
                 "more than its share of the update's tokens; 0: biases stay")
        .at_least(0);
    list.logical("chunk_tokens", &chunk_tokens, "most tokens of a micro-batch").at_least(1);
    list.logical("chunk_multiple", &chunk_multiple,
                 "micro-batches come in multiples of this; at least the data ranks planned for")
        .at_least(1);
}

update::Schedule OptimizerSection::schedule(std::int64_t updates) const {
    return {.name = lr_scheduler_type,
            .base_lr = learning_rate,
            .warmup_steps = warmup_steps,
            .training_steps = updates,
            .decay_steps = decay_steps,
            .min_lr_ratio = min_lr_ratio};
}

update::AdamwOptions OptimizerSection::adamw() const {
    return {.beta1 = adam_beta1,
            .beta2 = adam_beta2,
            .eps = adam_epsilon,
            .weight_decay = weight_decay,
            .max_grad_norm = max_grad_norm,
            .router_bias_rate = router_bias_rate};
}

}  // namespace rankwise::stages
