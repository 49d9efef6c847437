// How a step's minibatches were cut and what computing them took: metrics that say whether prompts
// are shared and whether there are chunks enough for the ranks.
#pragma once

#include <cstdint>
#include <span>

#include "io/metrics.hpp"
#include "src/stages/stage.hpp"
#include "src/update/trainer.hpp"

namespace rankwise::stages {

/// Counts of one step. They depend on the plans alone, not on the layout.
class UpdateCounts {
  public:
    /// Notes the plan of an update. The same on every rank.
    void add(std::span<const update::SampleSize> samples, const update::MinibatchPlan& plan);

    /// Notes what experts took in an update that is done (Trainer::chunk_loads). Collective over
    /// the tensor axis.
    void add_experts(const Environment& environment, std::span<const std::int64_t> chunk_loads);

    /// Collective. Appends, summed over the step's updates:
    ///  * update/chunks: micro-batches that hold something; more data ranks than an update has
    ///    would idle;
    ///  * update/bundles, update/groups_cut: prompts with their answers, each computed together;
    ///    groups whose answers are in more than one of them (their prompt is computed again);
    ///  * update/tokens, update/tokens_shared: rows that went through the layers; rows that
    ///    computing a prompt once for its answers saved;
    ///  * of a model with experts experts/empty, experts/most_tokens: how often an expert of a
    ///    layer got no token of a micro-batch; the most that one got.
    /// @param before, after  of this rank's trainer, around the step
    void append(const Environment& environment, const update::TokenCounts& before,
                const update::TokenCounts& after, io::MetricLine& metrics) const;

  private:
    std::int64_t chunks_ = 0;
    std::int64_t bundles_ = 0;
    std::int64_t groups_cut_ = 0;
    std::int64_t empty_experts_ = 0;  // of this rank's chunks and layers
    std::int64_t most_tokens_ = 0;
};

/// Says once, in the log of the run's first rank, that an update has fewer micro-batches than there
/// are data ranks (N3), of which some then have nothing to compute.
class IdleRanks {
  public:
    void look_at(const Environment& environment, const update::MinibatchPlan& plan);

  private:
    bool said_ = false;
};

}  // namespace rankwise::stages
