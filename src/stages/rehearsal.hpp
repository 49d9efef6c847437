// The largest allocations of a step, gone through for planning (kernels::PlanDevice).
#pragma once

#include <span>

#include "src/rollout/generator.hpp"
#include "src/stages/stage.hpp"
#include "src/update/trainer.hpp"

namespace rankwise::stages {

// Each tells environment.rehearsed of its parts.

/// A generator's cache and passes at their largest: every slot in use, as many as there are answers
/// for, and prompts as they are.
/// @param phase  "generate" or "evaluate"
void rehearse_generation(const Environment& environment, rollout::Generator& generator,
                         std::span<const tasks::Problem> problems, std::int64_t samples,
                         const rollout::SamplingOptions& sampling,
                         std::string_view phase = "generate");

/// Scoring of a minibatch's largest chunk by another model than the policy.
/// @param updates  minibatches of a step
void rehearse_score(const Environment& environment, model::Weights& weights,
                    const model::HeadOptions& head, std::span<const update::SampleSize> minibatch,
                    const update::PlanOptions& options, std::int64_t updates);

/// An update of the largest of some minibatches' chunks, and the optimizer's step.
/// @param updates  minibatches of a step
void rehearse_update(const Environment& environment, update::Trainer& trainer,
                     std::span<const std::vector<update::SampleSize>> minibatches,
                     const update::PlanOptions& options, std::int64_t updates = 1);

}  // namespace rankwise::stages
