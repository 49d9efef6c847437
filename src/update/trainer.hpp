// One optimizer step over a minibatch: chunks forward and backward, gradients to their owners,
// AdamW.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "src/model/decoder.hpp"
#include "src/update/adamw.hpp"
#include "src/update/minibatch_gradients.hpp"
#include "src/update/pipeline_run.hpp"
#include "src/update/plan.hpp"
#include "src/update/update_trace.hpp"

namespace rankwise::update {

/// Tokens of one sample, on the rank that computes it.
struct SampleText {
    std::span<const TokenId> prompt;
    std::span<const TokenId> answer;
};

/// How samples reach the trainer and losses leave it. Samples are numbered as in the plan.
struct MinibatchCallbacks {
    /// Called for samples of this rank's chunks, on every pipeline rank; the spans live until the
    /// next chunk.
    std::function<SampleText(std::int64_t sample)> text;
    /// Log-probability and entropy of each answer token of a sample, as this pass computes them;
    /// writes d loss / d logprob. Called on the last pipeline rank alone.
    std::function<void(std::int64_t sample, std::span<const float> logprob,
                       std::span<const float> entropy, std::span<float> coefficient)>
        loss;
    /// The same of a module that predicts one token further, for those of the tokens that it
    /// predicts: all, or all but the second of the sequence.
    std::function<void(std::int64_t sample, std::span<const float> logprob,
                       std::span<float> coefficient)>
        mtp_loss = {};
};

struct TrainerOptions {
    model::HeadOptions head;
    std::int64_t recompute = 0;  ///< physical: layers computed again (model::StagePass)
    int zero = 1;                ///< physical
    /// The module behind the last layer predicts one token further and is trained (model/mtp.hpp).
    /// Of samples that do not share their prompts.
    bool mtp = false;
    parallel::Schedule schedule = parallel::Schedule::one_forward_one_backward;  ///< physical
};

/// Work done, for metrics and tests.
struct TokenCounts {
    std::int64_t rows = 0;         ///< token rows passed through the layers, forward
    std::int64_t head_rows = 0;    ///< rows passed through the head
    std::int64_t shared_rows = 0;  ///< rows that sharing prompts saved
};

/// Holds a model's optimizer. Collective over the data axis and those of the model.
class Trainer {
  public:
    Trainer(model::Compute& compute, model::Weights& weights, parallel::Communicator& data,
            const TrainerOptions& options, const AdamwOptions& adamw);
    Trainer(const Trainer&) = delete;
    Trainer& operator=(const Trainer&) = delete;
    ~Trainer();

    /// Forward and backward over the chunks of this rank, wave by wave, then one AdamW step.
    /// @param before_update  called when all losses and gradients are known and no weight has
    /// changed; may throw
    /// @return the gradient norm before clipping
    double step(const MinibatchPlan& plan, const PlanOptions& plan_options,
                const MinibatchCallbacks& callbacks, double lr,
                const std::function<void()>& before_update = {});

    /// Steps from now on are recorded there (null: nowhere), alike on all ranks.
    void watch(UpdateTrace* trace) { trace_ = trace; }

    [[nodiscard]] Adamw& optimizer() { return adamw_; }
    [[nodiscard]] const Adamw& optimizer() const { return adamw_; }
    [[nodiscard]] const sums::GradientOwners& gradients() const { return owners_; }
    [[nodiscard]] sums::GradientOwners& gradient_owners() { return owners_; }
    /// Of the last minibatch, on this rank.
    [[nodiscard]] const ExpertLoads& expert_loads() const { return gradients_.expert_loads(); }
    [[nodiscard]] std::span<const std::int64_t> chunk_loads() const {
        return gradients_.chunk_loads();
    }
    [[nodiscard]] const TokenCounts& counts() const { return counts_; }

  private:
    /// This data rank's chunk of a wave.
    struct Chunk {
        model::Microbatch batch;
        struct Answer {
            std::int64_t sample;
            std::size_t tokens;
            std::size_t further;  ///< of these a module predicts so many
        };
        std::vector<Answer> answers;
    };
    [[nodiscard]] Chunk make_chunk(const MinibatchPlan& plan, bool share_prompts, Range bundles,
                                   const MinibatchCallbacks& callbacks);
    [[nodiscard]] static std::vector<float> losses_of(const Chunk& chunk,
                                                      const model::Logprobs& values,
                                                      const MinibatchCallbacks& callbacks);

    model::Compute& compute_;
    model::Weights& weights_;
    parallel::Communicator& data_;
    TrainerOptions options_;
    parallel::ShardMap shard_map_;
    sums::GradientOwners owners_;
    MinibatchGradients gradients_;
    Adamw adamw_;
    TokenCounts counts_;
    UpdateTrace* trace_ = nullptr;
};

/// Appends the bundles of a chunk to a micro-batch, in order.
/// @param mtp  for a module too, which predicts one token further
void append_bundles(model::Microbatch& batch, const MinibatchPlan& plan, bool share_prompts,
                    Range bundles, const std::function<SampleText(std::int64_t)>& text,
                    bool mtp = false);

}  // namespace rankwise::update
