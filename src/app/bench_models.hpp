// The models that are measured, and what a pass through one must do at least.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/app/bench_meter.hpp"
#include "src/model/weights.hpp"

namespace rankwise::app {

/// A model's sizes with the work that is usual for it.
struct BenchModel {
    std::string name;
    model::ModelConfig config;
    std::int64_t update_rows = 0;    ///< sequences of an update
    std::int64_t update_tokens = 0;  ///< tokens of each
    std::int64_t prompts = 0;        ///< of generation
    std::int64_t samples = 0;        ///< of each prompt
    std::int64_t prompt_tokens = 0;
    std::int64_t new_tokens = 0;
    bool whole_steps = true;  ///< also whole GRPO steps, which need the memory of a reference
};

/// llama-3m, llama-30m and smollm2-135m-shape.
[[nodiscard]] std::vector<BenchModel> bench_models();

/// Fills the weights with small random numbers, norms with 1, and packs. Quick: a table that is
/// repeated, so that nothing is learnt from such a model but its speed.
void fill_for_bench(model::Weights& weights, model::Compute& compute);

/// Weights that a token is multiplied with: all matrices but an embedding that is no head.
[[nodiscard]] double matmul_parameters(const model::ModelConfig& config);

/// A forward pass over `tokens` tokens that attend to `context` keys each on average; log-softmax
/// over all of them. Operations of matrix products and attention; the weights are read once.
[[nodiscard]] BenchWork forward_work(const model::ModelConfig& config, double tokens,
                                     double context);
/// Forward and backward pass over sequences: three times the operations.
[[nodiscard]] BenchWork update_work(const model::ModelConfig& config, double rows, double tokens);
/// One step of decoding: `answers` tokens, each after `context` others of which the first `shared`
/// are those of one of `prompts` prompts. Weights and keys and values are read once.
[[nodiscard]] BenchWork decode_work(const model::ModelConfig& config, double answers,
                                    double prompts, double shared, double context);
/// Prompts once, then `new_tokens` steps.
[[nodiscard]] std::vector<BenchWork> generation_work(const BenchModel& model);

}  // namespace rankwise::app
