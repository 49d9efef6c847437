// Stage `sft`: imitate worked examples.
#pragma once

#include "src/stages/evaluate.hpp"

namespace rankwise::stages {

struct SftOptions {
    std::int64_t batch_size = 32;
    std::int64_t steps = 0;  ///< 0: epochs * size / batch_size
    double epochs = 1.0;
    bool train_on_prompt = false;
    double mtp_loss_weight = 0.0;  ///< lambda; 0: the module that predicts further is not trained
    std::string data;  ///< what an earlier stage kept, or a file; empty: the task's demonstrations
    OptimizerSection optimizer;
    std::int64_t eval_steps = 0;  ///< evaluate every so many steps and after the last; 0: never
    EvaluateOptions evaluation;

    [[nodiscard]] OptionList options();
    [[nodiscard]] EvaluateOptions measurement() const { return evaluation; }
    [[nodiscard]] bool trains_mtp() const { return mtp_loss_weight > 0.0; }
};

/// Mean over the batch's response tokens of -log p(token), AdamW. Batches go through the examples
/// in order (a generator's order is random already); a finite file is shuffled anew in each epoch
/// (purpose data_order). With mtp_loss_weight, that times the mean of -log p of the same tokens as
/// the module behind the last layer predicts them, from one token further back, is added
/// (DeepSeek-V3 (2024) equations 24 and 25); both are divided by the number of response tokens.
/// @throws BadInput with the first of problems_of().
[[nodiscard]] std::unique_ptr<Stage> make_sft(const Environment& environment,
                                              const SftOptions& options);

/// What the options lack or contradict, a line each.
[[nodiscard]] std::vector<std::string> problems_of(const Environment& environment,
                                                   const SftOptions& options);

}  // namespace rankwise::stages
