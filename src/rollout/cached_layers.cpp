#include "src/rollout/cached_layers.hpp"

#include <functional>

namespace rankwise::rollout {
namespace {

using kernels::Matrix;

/// Rows of a lane from which on it computes as long as it reads weights: they come from memory once
/// a lane then, or from the cache that another has filled.
constexpr std::int64_t kRowsOfLane = 24;

/// Calls forward(attention) with what attention is for these rows in one layer.
template <class Forward>
void with_attention(model::Compute& compute, const model::Weights& weights, const KvPool& pool,
                    std::int64_t layer, const Rows& rows, const Forward& forward) {
    const model::AttentionShape shape = model::attention_shape(weights);
    const kernels::KvPages pages = pool.layer(weights.pipeline_part().local_layer(layer));
    const auto attend = [&](const model::AttentionInputs& in, Matrix out) {
        compute.device.kv_write({.k = in.k, .v = in.v, .slots = rows.slots, .pages = pages},
                                compute.stream);
        compute.device.paged_attention({.q = in.q,
                                        .heads = shape.heads,
                                        .pages = pages,
                                        .runs = rows.runs,
                                        .page_table = rows.page_table,
                                        .scale = shape.scale,
                                        .out = out},
                                       compute.stream);
    };
    forward(std::ref(attend));  // by reference: a function that keeps so much would be allocated
}

template <class Element>
void assign_part(std::vector<Element>& to, const std::vector<Element>& from, Range part) {
    to.assign(from.begin() + part.begin, from.begin() + part.end);
}

/// Some of the rows, of one token each; samples of a prompt still stand one behind another.
void take_rows(const Rows& all, Range some, Rows& part) {
    assign_part(part.positions, all.positions, some);
    assign_part(part.slots, all.slots, some);
    part.page_table = all.page_table;
    part.runs.clear();
    bool first = true;  // of its prompt
    for (kernels::PagedRun run : all.runs) {
        if (run.shared == 0) first = true;
        if (!some.contains(run.row_begin)) continue;
        run.row_begin -= some.begin;
        if (first) run.shared = 0;
        first = false;
        part.runs.push_back(run);
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
        with_attention(
            compute_, weights_, pool, layer, rows, [&](const model::AttentionPass& attention) {
                model::layer_forward(compute_, weights_, layer, rows.positions, attention, x);
            });
    }
}

void CachedLayers::lane_by_lane(const KvPool& pool, const model::LayerStage& stage,
                                const Rows& rows, std::int64_t lanes, Matrix x) {
    if (compute_.beat) compute_.beat();
    const kernels::Arena::Scope scope(compute_.arena);
    const model::LayerActivations scratch =
        model::forward_scratch(compute_, weights_, stage.layers.begin, x.rows);
    parts_.resize(static_cast<std::size_t>(lanes));
    for (std::int64_t lane = 0; lane < lanes; ++lane)
        take_rows(rows, split(x.rows, lanes, lane), parts_[static_cast<std::size_t>(lane)]);
    compute_.device.side_by_side(lanes, [&](std::int64_t lane) {
        const Range some = split(x.rows, lanes, lane);
        const Rows& part = parts_[static_cast<std::size_t>(lane)];
        model::LayerActivations own = model::rows_of(scratch, some, weights_.part());
        for (std::int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
            with_attention(compute_, weights_, pool, layer, part,
                           [&](const model::AttentionPass& attention) {
                               model::layer_forward(compute_, weights_, layer, part.positions,
                                                    attention, x.row_range(some), own);
                           });
        }
    });
}

}  // namespace rankwise::rollout
