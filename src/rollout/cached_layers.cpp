#include "src/rollout/cached_layers.hpp"

namespace rankwise::rollout {
namespace {

using kernels::Matrix;

/// Rows of a lane from which on it computes as long as it reads weights: they come from memory once
/// a lane then, or from the cache that another has filled.
constexpr std::int64_t kRowsOfLane = 24;

/// Attention of one layer over cached keys, those of its rows written first.
auto cached_attention(model::Compute& compute, const model::Weights& weights, const KvPool& pool,
                      std::int64_t layer, std::span<const std::int64_t> slots,
                      std::span<const kernels::PagedRun> runs, std::span<const PageId> page_table) {
    const model::AttentionShape shape = model::attention_shape(weights);
    const kernels::KvPages pages = pool.layer(weights.pipeline_part().local_layer(layer));
    return [=, &compute](const model::AttentionInputs& in, Matrix out) {
        compute.device.kv_write({.k = in.k, .v = in.v, .slots = slots, .pages = pages},
                                compute.stream);
        compute.device.paged_attention({.q = in.q,
                                        .heads = shape.heads,
                                        .pages = pages,
                                        .runs = runs,
                                        .page_table = page_table,
                                        .scale = shape.scale,
                                        .out = out},
                                       compute.stream);
    };
}

/// The runs of some rows, of one row each; samples of a prompt still stand one behind another.
void take_runs(std::span<const kernels::PagedRun> all, Range rows,
               std::vector<kernels::PagedRun>& some) {
    some.clear();
    bool first = true;  // of its prompt
    for (kernels::PagedRun run : all) {
        if (run.shared == 0) first = true;
        if (!rows.contains(run.row_begin)) continue;
        run.row_begin -= rows.begin;
        if (first) run.shared = 0;
        first = false;
        some.push_back(run);
    }
}

}  // namespace

std::int64_t CachedLayers::lanes_for(const model::LayerStage& stage, const Rows& rows) const {
    const std::int64_t lanes = compute_.device.lanes();
    const std::int64_t count = std::ssize(rows.ids);
    if (lanes == 1 || count < lanes * kRowsOfLane || std::ssize(rows.runs) != count) return 1;
    if (!resident_ || weights_.split() || compute_.probe || stage.layers.empty()) return 1;
    if (weights_.config().latent.used()) return 1;
    for (std::int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
        if (weights_.config().has_experts(layer)) return 1;
    }
    return lanes;
}

void CachedLayers::forward(const KvPool& pool, const model::LayerStage& stage, const Rows& rows,
                           Matrix x) {
    const std::int64_t lanes = lanes_for(stage, rows);
    if (lanes > 1) {
        lane_by_lane(pool, stage, rows, lanes, x);
        return;
    }
    for (std::int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
        model::gather_forward(compute_, weights_, stage, layer);
        const auto attention = cached_attention(compute_, weights_, pool, layer, rows.slots,
                                                rows.runs, rows.page_table);
        model::layer_forward(compute_, weights_, layer, rows.positions, attention, x);
    }
}

void CachedLayers::lane_by_lane(const KvPool& pool, const model::LayerStage& stage,
                                const Rows& rows, std::int64_t lanes, Matrix x) {
    if (compute_.beat) compute_.beat();
    const kernels::Arena::Scope scope(compute_.arena);
    const model::LayerActivations scratch =
        model::forward_scratch(compute_, weights_, stage.layers.begin, x.rows);
    lane_runs_.resize(static_cast<std::size_t>(lanes));
    compute_.device.side_by_side(lanes, [&](std::int64_t lane) {
        const Range some = split(x.rows, lanes, lane);
        const auto first = static_cast<std::size_t>(some.begin);
        const auto count = static_cast<std::size_t>(some.size());
        std::vector<kernels::PagedRun>& runs = lane_runs_[static_cast<std::size_t>(lane)];
        take_runs(rows.runs, some, runs);
        model::LayerActivations own = model::rows_of(scratch, some, weights_.part());
        for (std::int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
            const auto attention = cached_attention(compute_, weights_, pool, layer,
                                                    std::span(rows.slots).subspan(first, count),
                                                    runs, rows.page_table);
            model::layer_forward(compute_, weights_, layer,
                                 std::span(rows.positions).subspan(first, count), attention,
                                 x.row_range(some), own);
        }
    });
}

}  // namespace rankwise::rollout
