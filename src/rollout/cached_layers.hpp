// Rows through the layers of a stage, with their keys and values in the paged cache.
#pragma once

#include <vector>

#include "src/model/decoder.hpp"
#include "src/rollout/kv_pool.hpp"

namespace rankwise::rollout {

/// Rows that go through the layers together.
struct Rows {
    std::vector<TokenId> ids;
    std::vector<std::int32_t> positions;
    std::vector<std::int64_t> slots;  ///< of the cache, where a row's keys and values go
    std::vector<kernels::PagedRun> runs;
    std::vector<PageId> page_table;
};

/// The layers of one model in generation.
class CachedLayers {
  public:
    /// @param resident  weights are there whole, none is gathered on the way
    CachedLayers(model::Compute& compute, const model::Weights& weights, bool resident)
        : compute_(compute), weights_(weights), resident_(resident) {}

    /// x [rows, hidden] becomes what the stage's layers make of it; keys and values are written to
    /// `pool`. Many rows of one token each go lane by lane (Device::side_by_side): a lane's rows
    /// need no other's, so lanes meet once for all layers, and while one waits for its keys the
    /// other multiplies. The same bits as together.
    void forward(const KvPool& pool, const model::LayerStage& stage, const Rows& rows,
                 kernels::Matrix x);

  private:
    /// How many lanes are worth their own reading of all weights; 1: none.
    [[nodiscard]] std::int64_t lanes_for(const model::LayerStage& stage, const Rows& rows) const;
    void lane_by_lane(const KvPool& pool, const model::LayerStage& stage, const Rows& rows,
                      std::int64_t lanes, kernels::Matrix x);

    model::Compute& compute_;
    const model::Weights& weights_;
    bool resident_;
    std::vector<std::vector<kernels::PagedRun>> lane_runs_;  // in the memory of the step before
};

}  // namespace rankwise::rollout
