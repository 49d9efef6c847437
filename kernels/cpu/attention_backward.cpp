#include <algorithm>
#include <atomic>

#include "kernels/attention.hpp"
#include "kernels/cpu/attention_call.hpp"
#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"

namespace rankwise::kernels::cpu {
namespace {

void check(const SegmentAttentionBackwardArgs& args, const HeadShape& shape) {
    const std::int64_t rows = args.q.rows;
    const auto shaped = [&](const char* what, const ConstMatrix& matrix, std::int64_t cols) {
        check_operand("segment_attention_backward", what, matrix, args.q.dtype, rows, cols);
    };
    const auto summed = [&](const char* what, const ConstMatrix& matrix, std::int64_t cols) {
        const DType dtype = matrix.dtype == DType::f32 ? DType::f32 : args.q.dtype;
        check_operand("segment_attention_backward", what, matrix, dtype, rows, cols);
    };
    shaped("q", args.q, args.heads * shape.head_dim);
    shaped("k", args.k, args.kv_heads * shape.head_dim);
    shaped("v", args.v, args.kv_heads * shape.value_dim);
    shaped("out", args.out, args.heads * shape.value_dim);
    shaped("dout", args.dout, args.heads * shape.value_dim);
    shaped("dq", args.dq, args.heads * shape.head_dim);
    summed("dk", args.dk, args.kv_heads * shape.head_dim);
    summed("dv", args.dv, args.kv_heads * shape.value_dim);
    ensure(args.dk.dtype == args.dv.dtype, "segment_attention_backward: dk is {}, dv {}",
           name_of(args.dk.dtype), name_of(args.dv.dtype));
    ensure(args.maximum.size() == rows * args.heads && args.denominator.size() == rows * args.heads,
           "segment_attention_backward: {} maxima and {} denominators, expected {}",
           args.maximum.size(), args.denominator.size(), rows * args.heads);
    ensure(args.head_order.size() == args.heads,
           "segment_attention_backward: an order of {} heads, expected {}", args.head_order.size(),
           args.heads);
}

/// Which query heads of each KV head are added when.
struct HeadOrder {
    std::vector<HeadSum> steps;
    std::vector<std::int64_t> begin;  ///< KV head h: steps [begin[h], begin[h + 1])
    std::vector<std::int64_t> total;  ///< the head that holds the total in the end

    void plan(const Contraction& order, const HeadShape& shape) {
        steps.clear();
        begin.assign(1, 0);
        total.clear();
        for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
            total.push_back(head_sums(order, head, shape.group, steps));
            begin.push_back(std::ssize(steps));
        }
    }
};

void accumulate(const float* from, std::int64_t count, float* to) {
    for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
}

/// A finished sum to its result.
void give(const float* from, std::int64_t count, float* to) {
    std::copy_n(from, count, to);
}
void give(const float* from, std::int64_t count, std::uint16_t* to) {
    std::transform(from, from + count, to, bf16_from_float);
}

/// The gradients of keys or values for each query head, [heads][rows][padded]: sums over segments,
/// not yet times `scale`.
struct HeadTotals {
    float* data = nullptr;
    std::int64_t rows = 0;
    std::int64_t size = 0;  ///< of a head
    std::int64_t padded = 0;
    float scale = 1.0F;

    HeadTotals(std::int64_t of_rows, std::int64_t of_head, float times)
        : rows(of_rows), size(of_head), padded(round_up(of_head, 16)), scale(times) {}
    [[nodiscard]] std::int64_t floats(std::int64_t heads) const { return heads * rows * padded; }
    [[nodiscard]] float* at(std::int64_t head, std::int64_t row) const {
        return data + (head * rows + row) * padded;
    }
};

/// Adds what one segment gives to the keys of its path; the first to give anything is stored, not
/// added, and has its own keys' there already.
template <class Element>
void add_to_path(std::span<const AttentionSegment> segments, std::int64_t segment,
                 const AttentionHeadGradient<Element>& given, std::int64_t head,
                 const HeadTotals& keys, const HeadTotals& values, std::vector<char>& met) {
    for (std::int64_t i = segment; i >= 0; i = segments[static_cast<std::size_t>(i)].parent) {
        const AttentionSegment& above = segments[static_cast<std::size_t>(i)];
        char& met_before = met[static_cast<std::size_t>(i)];
        const auto add = [&](const float* part, const HeadTotals& totals) {
            const float* from = part + above.position * totals.padded;
            const std::int64_t count = above.rows * totals.padded;
            float* to = totals.at(head, above.row_begin);
            if (met_before != 0) {
                accumulate(from, count, to);
            } else if (i != segment) {
                std::copy_n(from, count, to);
            }
        };
        add(given.dk, keys);
        add(given.dv, values);
        met_before = 1;
    }
}

/// The query heads of a KV head added, some rows of them: each times the scale, then in order.
/// @param scratch  [group][padded]
template <class Element>
void add_heads(const HeadTotals& totals, const HeadOrder& order, std::int64_t kv_head,
               std::int64_t group, Range rows, float* scratch, Element* to, std::int64_t stride) {
    const auto index = static_cast<std::size_t>(kv_head);
    const std::int64_t padded = totals.padded;
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        for (std::int64_t head = 0; head < group; ++head) {
            const float* from = totals.at(kv_head * group + head, row);
            float* scaled = scratch + head * padded;
            for (std::int64_t i = 0; i < padded; ++i) scaled[i] = from[i] * totals.scale;
        }
        for (std::int64_t i = order.begin[index]; i < order.begin[index + 1]; ++i) {
            const HeadSum& step = order.steps[static_cast<std::size_t>(i)];
            accumulate(scratch + step.from * padded, padded, scratch + step.to * padded);
        }
        give(scratch + order.total[index] * padded, totals.size,
             to + row * stride + kv_head * totals.size);
    }
}

}  // namespace

void CpuDevice::segment_attention_backward(const SegmentAttentionBackwardArgs& args,
                                           Stream& /*stream*/) {
    const std::int64_t rows = args.q.rows;
    const HeadShape shape =
        check_heads("segment_attention_backward", args.q, args.heads, args.kv_heads,
                    head_size(args.q, args.heads), head_size(args.out, args.heads));
    check(args, shape);
    // Kept by the calling thread, whose tasks other threads run: they see its own by reference.
    thread_local AttentionPlan kept_plan;
    plan_segments(args.segments, rows, kept_plan);
    const AttentionPlan& plan = kept_plan;
    thread_local HeadOrder kept_order;
    kept_order.plan(args.head_order, shape);
    const HeadOrder& order = kept_order;

    const std::int64_t head_dim = shape.head_dim;
    const std::int64_t value_dim = shape.value_dim;
    const std::int64_t block_size = (2 * head_dim + value_dim) * kKeyBlock;
    const std::int64_t block_stride = shape.kv_heads * block_size;
    thread_local Scratch packed;
    float* const blocks = packed.take(plan.blocks() * block_stride);
    thread_local Scratch sums;
    HeadTotals keys(rows, head_dim, args.scale);
    HeadTotals values(rows, value_dim, 1.0F);
    keys.data = sums.take(keys.floats(args.heads) + values.floats(args.heads));
    values.data = keys.data + keys.floats(args.heads);
    const float* maximum = at(args.maximum);
    const float* denominator = at(args.denominator);
    const std::int64_t bundles = std::ssize(plan.bundles) - 1;
    // Query heads of each bundle and KV head that are not done. Whoever does the last one adds them
    // all, while they are in the caches.
    thread_local std::vector<std::int64_t> kept_left;
    kept_left.assign(static_cast<std::size_t>(bundles * shape.kv_heads), shape.group);
    const std::span<std::int64_t> heads_left(kept_left);
    const auto finish = [&](std::int64_t kv_head, Range bundle_rows) {
        float* scratch = task_scratch().take(shape.group * std::max(keys.padded, values.padded));
        with_elements(args.dk.dtype, [&]<class Element>(Element /*element*/) {
            add_heads(keys, order, kv_head, shape.group, bundle_rows, scratch,
                      elements<Element>(args.dk), args.dk.stride);
            add_heads(values, order, kv_head, shape.group, bundle_rows, scratch,
                      elements<Element>(args.dv), args.dv.stride);
        });
    };

    with_elements(args.q.dtype, [&]<class Element>(Element /*element*/) {
        const AttentionKernels<Element>& kernels = attention_kernels<Element>(isa_);
        const auto* k = elements<Element>(args.k);
        const auto* v = elements<Element>(args.v);
        const auto pack = [&](std::int64_t block, std::int64_t head) {
            kernels.pack_backward({.k = k + head * head_dim,
                                   .v = v + head * value_dim,
                                   .k_stride = args.k.stride,
                                   .v_stride = args.v.stride,
                                   .rows = plan.block_rows.data() + block * kKeyBlock,
                                   .head_dim = head_dim,
                                   .value_dim = value_dim,
                                   .to = blocks + block * block_stride + head * block_size});
        };
        run_for_heads(*team_, plan.blocks(), shape.kv_heads, pack);

        const auto* q = elements<Element>(args.q);
        const auto* out = elements<Element>(args.out);
        const auto* dout = elements<Element>(args.dout);
        auto* dq = elements<Element>(args.dq);
        team_->run(bundles * args.heads, [&](std::int64_t task) {
            const std::int64_t bundle = task / args.heads;
            const std::int64_t head = task % args.heads;
            const std::int64_t kv_head = head / shape.group;
            const auto index = static_cast<std::size_t>(bundle);
            const Range members{plan.bundles[index], plan.bundles[index + 1]};
            std::int64_t longest = 0;
            for (std::int64_t i = members.begin; i < members.end; ++i) {
                const AttentionSegment& segment = args.segments[static_cast<std::size_t>(i)];
                longest = std::max(longest, segment.position + segment.rows);
            }
            thread_local std::vector<char> met;
            met.assign(args.segments.size(), 0);
            float* scratch = task_scratch().take(longest * (keys.padded + values.padded) +
                                                 kernels.gradient_scratch(head_dim, value_dim));
            float* dk = scratch;
            float* dv = dk + longest * keys.padded;
            for (std::int64_t i = members.begin; i < members.end; ++i) {
                const AttentionSegment& segment = args.segments[static_cast<std::size_t>(i)];
                if (segment.rows == 0) continue;
                const std::int64_t row = segment.row_begin;
                const bool first = met[static_cast<std::size_t>(i)] == 0;
                const AttentionHeadGradient<Element> gradient{
                    .q = q + row * args.q.stride + head * head_dim,
                    .out = out + row * args.out.stride + head * value_dim,
                    .dout = dout + row * args.dout.stride + head * value_dim,
                    .q_stride = args.q.stride,
                    .out_stride = args.out.stride,
                    .dout_stride = args.dout.stride,
                    .rows = segment.rows,
                    .position = segment.position,
                    .head_dim = head_dim,
                    .value_dim = value_dim,
                    .scale = args.scale,
                    .maximum = maximum + row * args.heads + head,
                    .denominator = denominator + row * args.heads + head,
                    .statistics_stride = args.heads,
                    .blocks = blocks + kv_head * block_size,
                    .block_stride = block_stride,
                    .table = plan.table(i),
                    .dq = dq + row * args.dq.stride + head * head_dim,
                    .dq_stride = args.dq.stride,
                    .dk = dk,
                    .dv = dv,
                    .own_dk = first ? keys.at(head, row) : dk + segment.position * keys.padded,
                    .own_dv = first ? values.at(head, row) : dv + segment.position * values.padded,
                    .scratch = dv + longest * values.padded};
                kernels.gradient(gradient);
                add_to_path(args.segments, i, gradient, head, keys, values, met);
            }
            std::atomic_ref left(
                heads_left[static_cast<std::size_t>(bundle * shape.kv_heads + kv_head)]);
            if (left.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
            const AttentionSegment& leading =
                args.segments[static_cast<std::size_t>(members.begin)];
            const AttentionSegment& root = args.segments[static_cast<std::size_t>(members.end - 1)];
            finish(kv_head, {leading.row_begin, root.row_begin + root.rows});
        });
    });
}

}  // namespace rankwise::kernels::cpu
