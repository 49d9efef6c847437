// Stage `reject`: rejection sampling. Many answers are drawn, few are kept, and what is kept is
// data for sft.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/stages/evaluate.hpp"
#include "src/stages/sampling_options.hpp"

namespace rankwise::stages {

struct RejectOptions {
    std::int64_t num_prompts = 256;
    std::int64_t num_prompts_per_step = 64;
    std::int64_t num_generations = 8;
    std::int64_t first_prompt = 0;  ///< place among the training problems where the stage begins
    SamplingSection sampling;
    RewardSection rewards;
    double min_score = 1.0;
    std::vector<std::string> filter_funcs{"format"};
    std::vector<double> filter_min{1.0};
    std::int64_t min_tokens = 1;
    std::int64_t max_tokens = 0;
    bool keep_unfinished = false;
    std::int64_t max_per_prompt = 1;
    bool best_first = false;
    std::int64_t max_kept = 0;
    double mix_demonstrations = 0.0;

    [[nodiscard]] OptionList options();
    /// How the stage measures a model: as `evaluate` with its sampling.
    [[nodiscard]] EvaluateOptions measurement() const;
};

/// What the options lack or contradict, a line each.
[[nodiscard]] std::vector<std::string> problems_of(const Environment& environment,
                                                   const RejectOptions& options);

/// Each step draws `num_generations` answers to the next prompts, and writes those that pass every
/// filter to environment.data_folder/STAGE/step_N (HDF5, rollout files). The last step selects
/// (selection.hpp) and writes environment.data_folder/STAGE.jsonl: rows with prompt, completion,
/// their ids, prompt_id, sample, right_rate and scores. What is written does not depend on the
/// layout; a restart goes on from the steps that are there.
/// metrics: dropped/REASON (answers of the step), candidates; of the last step also
/// dropped/{duplicate, over_prompt, over_total}, kept, mixed_in.
/// @throws BadInput with the first of problems_of(). A step throws BadNumbers if nothing at all was
/// kept (names prompts).
[[nodiscard]] std::unique_ptr<Stage> make_reject(const Environment& environment,
                                                 const RejectOptions& options);

}  // namespace rankwise::stages
