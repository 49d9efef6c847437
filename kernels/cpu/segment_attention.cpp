#include "kernels/attention.hpp"
#include "kernels/cpu/attention_chunks.hpp"
#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/segment_keys.hpp"

namespace rankwise::kernels::cpu {
namespace {

HeadShape check(const SegmentAttentionArgs& args) {
    const HeadShape shape = check_segment_heads("segment_attention", args);
    const std::int64_t all = args.q.rows * args.heads;
    const std::int64_t expected = args.maximum.empty() && args.denominator.empty() ? 0 : all;
    ensure(args.maximum.size() == expected && args.denominator.size() == expected,
           "segment_attention: {} maxima and {} denominators, expected {} or none",
           args.maximum.size(), args.denominator.size(), all);
    return shape;
}

/// Rows of a segment that are attended to together.
struct Chunk {
    std::int64_t bundle = 0;
    std::int64_t segment = 0;
    Range rows;  ///< of the segment
};

/// One call, on elements of one type.
template <class Element>
struct ForwardCall {
    const SegmentAttentionArgs& args;
    const HeadShape& shape;
    const AttentionPlan& plan;
    const AttentionKernels<Element>& kernels;
    SegmentKeys<Element> keys;
    const Element* q;
    Element* out;
    float* maximum;
    float* denominator;

    template <class Body>
    void each_chunk_of(std::int64_t segment, const Body& body) const {
        const AttentionSegment& all = args.segments[static_cast<std::size_t>(segment)];
        each_chunk(all.position, all.rows, shape.group, body);
    }

    /// @param blocks  of the segment's bundle, of this head
    void attend(std::int64_t index, Range rows, std::int64_t head, const float* blocks,
                std::int64_t block_stride, float* scratch) const {
        const AttentionSegment& segment = args.segments[static_cast<std::size_t>(index)];
        const std::int64_t row = segment.row_begin + rows.begin;
        const std::int64_t statistic = row * args.heads + head * shape.group;
        auto kv_head = head_of<Element, float>(shape, head, args, q, out, blocks, block_stride);
        kv_head.scratch = scratch;
        to_row(kv_head, row);
        kernels.attend({.head = kv_head,
                        .rows = rows.size(),
                        .position = segment.position + rows.begin,
                        .table = plan.table(index),
                        .maximum = maximum == nullptr ? nullptr : maximum + statistic,
                        .denominator = maximum == nullptr ? nullptr : denominator + statistic,
                        .statistics_stride = args.heads});
    }

    [[nodiscard]] std::int64_t chunk_scratch() const {
        return kernels.rows_scratch(chunk_rows(kChunkPairsOfMany, shape.group) * shape.group,
                                    shape.head_dim, shape.value_dim);
    }

    /// One KV head of one bundle a task, which packs its keys and values for itself: they stay in
    /// the caches until all of its rows have met them.
    void by_bundles(ThreadTeam& team) const {
        const std::int64_t packed =
            keys.size * plan.most([](const auto& bundle) { return bundle.blocks.size(); });
        team.run(std::ssize(plan.bundles) * shape.kv_heads, [&](std::int64_t task) {
            const auto& bundle = plan.bundles[static_cast<std::size_t>(task / shape.kv_heads)];
            const std::int64_t head = task % shape.kv_heads;
            float* const own = task_scratch().take(packed + chunk_scratch());
            keys.pack_bundle(bundle, head, own);
            for (std::int64_t i = bundle.segments.begin; i < bundle.segments.end; ++i) {
                each_chunk_of(
                    i, [&](Range rows) { attend(i, rows, head, own, keys.size, own + packed); });
            }
        });
    }

    /// All keys and values packed, then a chunk a task, for few or uneven bundles.
    /// @param packed  keys.floats() floats
    void by_chunks(ThreadTeam& team, float* packed) const {
        keys.pack_all(team, packed);
        thread_local std::vector<Chunk> kept_chunks;
        kept_chunks.clear();
        for (std::int64_t b = 0; b < std::ssize(plan.bundles); ++b) {
            const Range segments = plan.bundles[static_cast<std::size_t>(b)].segments;
            for (std::int64_t i = segments.begin; i < segments.end; ++i)
                each_chunk_of(i, [&](Range rows) { kept_chunks.push_back({b, i, rows}); });
        }
        const std::span<const Chunk> chunks(kept_chunks);
        run_for_heads(team, std::ssize(chunks), shape.kv_heads,
                      [&](std::int64_t i, std::int64_t head) {
                          const Chunk& chunk = chunks[static_cast<std::size_t>(i)];
                          const auto& bundle = plan.bundles[static_cast<std::size_t>(chunk.bundle)];
                          attend(chunk.segment, chunk.rows, head, keys.in_all(packed, bundle, head),
                                 keys.stride(), task_scratch().take(chunk_scratch()));
                      });
    }
};

}  // namespace

void CpuDevice::segment_attention(const SegmentAttentionArgs& args, Stream& /*stream*/) {
    const HeadShape shape = check(args);
    // Kept by the calling thread, whose tasks other threads run: they see its own by reference.
    thread_local AttentionPlan kept_plan;
    plan_segments(args.segments, args.q.rows, kept_plan);
    const AttentionPlan& plan = kept_plan;
    const bool statistics = !args.maximum.empty();
    with_elements(args.q.dtype, [&]<class Element>(Element /*element*/) {
        const AttentionKernels<Element>& kernels = attention_kernels<Element>(isa_);
        const ForwardCall<Element> call{.args = args,
                                        .shape = shape,
                                        .plan = plan,
                                        .kernels = kernels,
                                        .keys = {.plan = plan,
                                                 .shape = shape,
                                                 .k = elements<Element>(args.k),
                                                 .v = elements<Element>(args.v),
                                                 .k_stride = args.k.stride,
                                                 .v_stride = args.v.stride,
                                                 .pack = kernels.pack_forward,
                                                 .size = block_size(shape)},
                                        .q = elements<Element>(args.q),
                                        .out = elements<Element>(args.out),
                                        .maximum = statistics ? at(args.maximum) : nullptr,
                                        .denominator = statistics ? at(args.denominator) : nullptr};
        if (plan.bundles_fill(team_->threads(), shape.kv_heads)) return call.by_bundles(*team_);
        thread_local Scratch packed;
        call.by_chunks(*team_, packed.take(call.keys.floats()));
    });
}

}  // namespace rankwise::kernels::cpu
