// Micro-batches of one optimizer step through the stages of this rank.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "parallel/pipeline_schedule.hpp"
#include "src/model/decoder.hpp"
#include "src/update/minibatch_gradients.hpp"

namespace rankwise::update {

/// What a run through the stages is told. Micro-batches are the waves of a step.
struct PipelineWork {
    /// By wave; null where this data rank has no chunk: it takes part in the exchange of gradients.
    std::span<const model::Microbatch* const> batches;
    /// On the last pipeline rank: d loss / d logprob of a wave's head rows.
    std::function<std::vector<float>(std::int64_t wave, const model::Logprobs&)> loss;
    /// Before a backward step: gradients are of this wave from now on.
    std::function<void(std::int64_t wave)> begin_wave;
    /// Before each pass of this data rank's chunk of a wave. May be empty.
    std::function<void(std::int64_t wave)> enter_chunk = {};
};

/// Goes through all waves forward and backward by the schedule. Streams and their gradients travel
/// between neighbours as they are; each receive of a gradient is started before the pass that it
/// answers goes forward, so that no rank waits to send. What a pass keeps lies in an arena of its
/// own beside compute.arena, one for each pass in flight. Collective over all axes.
/// @param gradients  their sink; of a layer the waves come in ascending order (N3)
void run_pipeline(model::Compute& compute, const model::Weights& weights,
                  const model::HeadOptions& head, parallel::Schedule schedule,
                  std::int64_t recompute, const PipelineWork& work, MinibatchGradients& gradients);

}  // namespace rankwise::update
