// Options that stages share: sampling, rewards, optimizer.
#pragma once

#include <string>
#include <vector>

#include "src/base/options.hpp"
#include "src/rollout/sampling.hpp"
#include "src/stages/stage.hpp"
#include "src/tasks/scorer.hpp"
#include "src/update/schedule.hpp"

namespace rankwise::stages {

struct SamplingSection {
    double temperature = 1.0;
    std::int64_t top_k = 0;
    double top_p = 1.0;
    double min_p = 0.0;
    std::int64_t max_completion_length = 256;
    std::vector<std::string> stop_strings;

    void declare(OptionList& list, const std::string& prefix = "");
    [[nodiscard]] rollout::SamplingOptions sampling(const Environment& environment) const;
};

struct RewardSection {
    std::vector<std::string> reward_funcs{"countdown", "format"};
    std::vector<double> reward_weights;

    void declare(OptionList& list);
    [[nodiscard]] tasks::RewardSet rewards() const;
};

/// What is wrong with the rewards that a recipe names, a line each.
[[nodiscard]] std::vector<std::string> problems_of(const RewardSection& rewards);

/// @throws BadInput with the first problem, if there is one.
void require_none(const std::vector<std::string>& problems);

struct OptimizerSection {
    double learning_rate = 1e-6;
    std::string lr_scheduler_type = "linear";
    std::int64_t warmup_steps = 0;
    double min_lr_ratio = 0.0;
    std::int64_t decay_steps = 0;
    double adam_beta1 = 0.9;
    double adam_beta2 = 0.999;
    double adam_epsilon = 1e-8;
    double weight_decay = 0.0;
    double max_grad_norm = 1.0;
    double router_bias_rate = 0.0;
    std::int64_t chunk_tokens = 2048;
    std::int64_t chunk_multiple = 8;

    void declare(OptionList& list);
    [[nodiscard]] update::Schedule schedule(std::int64_t updates) const;
    [[nodiscard]] update::AdamwOptions adamw() const;
};

}  // namespace rankwise::stages
