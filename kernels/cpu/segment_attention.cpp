#include "kernels/attention.hpp"
#include "kernels/cpu/attention_chunks.hpp"
#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"

namespace rankwise::kernels::cpu {
namespace {

void check(const SegmentAttentionArgs& args, const HeadShape& shape) {
    const std::int64_t rows = args.q.rows;
    const auto shaped = [&](const char* what, const ConstMatrix& matrix, std::int64_t cols) {
        check_operand("segment_attention", what, matrix, args.q.dtype, rows, cols);
    };
    shaped("q", args.q, args.heads * shape.head_dim);
    shaped("k", args.k, args.kv_heads * shape.head_dim);
    shaped("v", args.v, args.kv_heads * shape.value_dim);
    shaped("out", args.out, args.heads * shape.value_dim);
    const std::int64_t expected =
        args.maximum.empty() && args.denominator.empty() ? 0 : rows * args.heads;
    ensure(args.maximum.size() == expected && args.denominator.size() == expected,
           "segment_attention: {} maxima and {} denominators, expected {} or none",
           args.maximum.size(), args.denominator.size(), rows * args.heads);
}

/// Pieces of all segments, and which of them are each bundle's.
struct Pieces {
    std::vector<Chunk> chunks;
    std::vector<std::int64_t> bundle_of;  ///< by chunk
    std::vector<std::int64_t> begin;      ///< bundle b: chunks [begin[b], begin[b + 1])
    std::int64_t most_rows = 0;           ///< of a chunk

    void plan(std::span<const AttentionSegment> segments, const AttentionPlan& plan,
              std::int64_t group) {
        chunks.clear();
        bundle_of.clear();
        begin.assign(1, 0);
        most_rows = 0;
        for (const AttentionPlan::Bundle& bundle : plan.bundles) {
            for (std::int64_t i = bundle.segments.begin; i < bundle.segments.end; ++i) {
                const AttentionSegment& segment = segments[static_cast<std::size_t>(i)];
                append_chunks(i, segment.position, segment.rows, group, chunks);
            }
            bundle_of.resize(chunks.size(), std::ssize(begin) - 1);
            begin.push_back(std::ssize(chunks));
        }
        for (const Chunk& chunk : chunks) most_rows = std::max(most_rows, chunk.rows);
    }
};

/// One call, on elements of one type.
template <class Element>
struct ForwardCall {
    const SegmentAttentionArgs& args;
    const HeadShape& shape;
    const AttentionPlan& plan;
    const AttentionKernels<Element>& kernels;
    const Element* q;
    const Element* k;
    const Element* v;
    Element* out;
    float* maximum;
    float* denominator;

    void pack(std::int64_t block, std::int64_t head, float* to) const {
        kernels.pack_forward({.k = k + head * shape.head_dim,
                              .v = v + head * shape.value_dim,
                              .k_stride = args.k.stride,
                              .v_stride = args.v.stride,
                              .rows = plan.block_rows.data() + block * kKeyBlock,
                              .keys = plan.block_keys[static_cast<std::size_t>(block)],
                              .head_dim = shape.head_dim,
                              .value_dim = shape.value_dim,
                              .to = to});
    }

    /// @param blocks  of the chunk's bundle, of this head
    void attend(const Chunk& chunk, std::int64_t head, const float* blocks,
                std::int64_t block_stride, float* scratch) const {
        const AttentionSegment& segment = args.segments[static_cast<std::size_t>(chunk.source)];
        const std::int64_t row = segment.row_begin + chunk.row;
        const std::int64_t statistic = row * args.heads + head * shape.group;
        auto kv_head = head_of<Element, float>(shape, head, args, q, out, blocks, block_stride);
        kv_head.scratch = scratch;
        to_row(kv_head, row);
        kernels.attend({.head = kv_head,
                        .rows = chunk.rows,
                        .position = segment.position + chunk.row,
                        .table = plan.table(chunk.source),
                        .maximum = maximum == nullptr ? nullptr : maximum + statistic,
                        .denominator = maximum == nullptr ? nullptr : denominator + statistic,
                        .statistics_stride = args.heads});
    }

    [[nodiscard]] std::int64_t chunk_scratch(std::int64_t rows) const {
        return kernels.rows_scratch(rows * shape.group, shape.head_dim, shape.value_dim);
    }

    /// One KV head of one bundle a task, which packs its keys and values for itself: they stay in
    /// the caches until all of its rows have met them.
    void by_bundles(ThreadTeam& team, const Pieces& pieces) const {
        const std::int64_t size = block_size(shape);
        const std::int64_t packed = plan.most_blocks() * size;
        const std::int64_t heads = shape.kv_heads;
        team.run(std::ssize(plan.bundles) * heads, [&](std::int64_t task) {
            const auto bundle = static_cast<std::size_t>(task / heads);
            const std::int64_t head = task % heads;
            const Range blocks = plan.bundles[bundle].blocks;
            float* const own = task_scratch().take(packed + chunk_scratch(pieces.most_rows));
            for (std::int64_t block = blocks.begin; block < blocks.end; ++block)
                pack(block, head, own + (block - blocks.begin) * size);
            for (std::int64_t i = pieces.begin[bundle]; i < pieces.begin[bundle + 1]; ++i)
                attend(pieces.chunks[static_cast<std::size_t>(i)], head, own, size, own + packed);
        });
    }

    /// All keys and values packed, then a chunk a task, for few or uneven bundles.
    void by_chunks(ThreadTeam& team, const Pieces& pieces, float* packed) const {
        const std::int64_t size = block_size(shape);
        const std::int64_t stride = shape.kv_heads * size;
        run_for_heads(team, plan.blocks(), shape.kv_heads,
                      [&](std::int64_t block, std::int64_t head) {
                          pack(block, head, packed + block * stride + head * size);
                      });
        run_for_heads(team, std::ssize(pieces.chunks), shape.kv_heads,
                      [&](std::int64_t i, std::int64_t head) {
                          const auto at = static_cast<std::size_t>(i);
                          const auto bundle = static_cast<std::size_t>(pieces.bundle_of[at]);
                          const Chunk& chunk = pieces.chunks[at];
                          attend(chunk, head,
                                 packed + plan.bundles[bundle].blocks.begin * stride + head * size,
                                 stride, task_scratch().take(chunk_scratch(chunk.rows)));
                      });
    }
};

}  // namespace

void CpuDevice::segment_attention(const SegmentAttentionArgs& args, Stream& /*stream*/) {
    const HeadShape shape =
        check_heads("segment_attention", args.q, args.heads, args.kv_heads,
                    head_size(args.q, args.heads), head_size(args.out, args.heads));
    check(args, shape);
    // Kept by the calling thread, whose tasks other threads run: they see its own by reference.
    thread_local AttentionPlan kept_plan;
    plan_segments(args.segments, args.q.rows, kept_plan);
    const AttentionPlan& plan = kept_plan;
    thread_local Pieces kept_pieces;
    kept_pieces.plan(args.segments, plan, shape.group);
    const Pieces& pieces = kept_pieces;
    const bool statistics = !args.maximum.empty();
    with_elements(args.q.dtype, [&]<class Element>(Element /*element*/) {
        const ForwardCall<Element> call{.args = args,
                                        .shape = shape,
                                        .plan = plan,
                                        .kernels = attention_kernels<Element>(isa_),
                                        .q = elements<Element>(args.q),
                                        .k = elements<Element>(args.k),
                                        .v = elements<Element>(args.v),
                                        .out = elements<Element>(args.out),
                                        .maximum = statistics ? at(args.maximum) : nullptr,
                                        .denominator = statistics ? at(args.denominator) : nullptr};
        if (plan.bundles_fill(team_->threads(), shape.kv_heads))
            return call.by_bundles(*team_, pieces);
        thread_local Scratch packed;
        call.by_chunks(*team_, pieces,
                       packed.take(plan.blocks() * shape.kv_heads * block_size(shape)));
    });
}

}  // namespace rankwise::kernels::cpu
