// How micro-batches come into the stages of a pipeline rank, and leave them, on their way forward.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "parallel/pipeline_schedule.hpp"
#include "src/model/token_split.hpp"
#include "src/sums/messages.hpp"

namespace rankwise::model {

/// Rows of a tied embedding, looked up by the last rank for the first: [own rows, hidden] of each
/// micro-batch, in their order. They are sent some micro-batches before the last rank meets these
/// itself, so that the first need not wait. Does nothing on other ranks.
class EmbeddingLookups {
  public:
    /// @param batches  null: a micro-batch of which this data rank has nothing
    EmbeddingLookups(Compute& compute, const Weights& weights,
                     std::span<const Microbatch* const> batches);
    /// Before the first virtual stage of a micro-batch.
    void before(std::int64_t micro_batch);

  private:
    void send(std::int64_t micro_batch);

    Compute& compute_;
    const Weights& weights_;
    std::vector<const Microbatch*> batches_;
    std::optional<sums::Outbox> outbox_;
    std::int64_t sent_ = 0;  ///< micro-batches so far
};

/// Fills the stream of a stage that this rank does not embed itself: from the stage before, or with
/// rows that the last rank has looked up.
void receive_stream(Compute& compute, const Weights& weights, const LayerStage& stage,
                    kernels::Matrix x);

/// Forward passes of some micro-batches through this rank's stages. On one rank nothing travels.
class StageMail {
  public:
    /// Takes scratch memory until it is destroyed.
    StageMail(Compute& compute, const Weights& weights, std::span<const Microbatch> batches);

    /// What this rank does, in order.
    [[nodiscard]] const std::vector<parallel::PipelineStep>& forward_steps() const {
        return steps_;
    }
    /// Where a stage that is not the last computes, and what it does then.
    [[nodiscard]] kernels::Matrix room(const TokenSplit& tokens);
    void send() { outbox_->send("activations:stage"); }
    /// A micro-batch of which this data rank has nothing.
    void pass_by(const parallel::PipelineStep& step);
    /// Fills the stream with the stage's input.
    void receive(const parallel::PipelineStep& step, const Microbatch& batch,
                 const TokenSplit& tokens, kernels::Matrix x);

  private:
    kernels::Arena::Scope scope_;
    Compute& compute_;
    const Weights& weights_;
    std::vector<parallel::PipelineStep> steps_;
    std::optional<EmbeddingLookups> lookups_;
    std::optional<sums::Outbox> outbox_;
};

}  // namespace rankwise::model
