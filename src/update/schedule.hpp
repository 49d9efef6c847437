// Learning rates over the steps of a stage.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rankwise::update {

/// A schedule under its Hugging Face name: constant, constant_with_warmup, linear, cosine,
/// cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay.
struct Schedule {
    std::string name = "linear";
    double base_lr = 0.0;
    std::int64_t warmup_steps = 0;
    std::int64_t training_steps = 1;
    std::int64_t decay_steps = 0;  ///< warmup_stable_decay
    double min_lr_ratio =
        0.0;                  ///< of base_lr, where the name has a minimum; `linear` ends there too
    double num_cycles = 0.5;  ///< cosine
    std::string warmup_type = "linear";  ///< warmup_stable_decay: linear, cosine
    std::string decay_type = "cosine";   ///< warmup_stable_decay: cosine, linear, 1-sqrt
};

/// Learning rate of optimizer step `step`, the first being 0. In double (N9), as
/// transformers.get_scheduler gives it.
[[nodiscard]] double learning_rate(const Schedule& schedule, std::int64_t step);

[[nodiscard]] std::vector<std::string> schedule_names();

}  // namespace rankwise::update
