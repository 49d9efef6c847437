#include <algorithm>
#include <atomic>

#include "kernels/attention.hpp"
#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/segment_keys.hpp"

namespace rankwise::kernels::cpu {
namespace {

HeadShape check(const SegmentAttentionBackwardArgs& args) {
    constexpr const char* kOp = "segment_attention_backward";
    const HeadShape shape = check_segment_heads(kOp, args);
    const std::int64_t rows = args.q.rows;
    check_operand(kOp, "dout", args.dout, args.q.dtype, rows, args.heads * shape.value_dim);
    check_operand(kOp, "dq", args.dq, args.q.dtype, rows, args.heads * shape.head_dim);
    const auto summed = [&](const char* what, const ConstMatrix& matrix, std::int64_t cols) {
        const DType dtype = matrix.dtype == DType::f32 ? DType::f32 : args.q.dtype;
        check_operand(kOp, what, matrix, dtype, rows, cols);
    };
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
    return shape;
}

/// Which query heads of each KV head are added when.
struct HeadOrder {
    std::vector<HeadSum> steps;
    std::vector<std::int64_t> begin;  ///< KV head h: steps [begin[h], begin[h + 1])
    std::vector<std::int64_t> total;  ///< the head that holds the total in the end

    [[nodiscard]] std::span<const HeadSum> steps_of(std::int64_t kv_head) const {
        const auto at = static_cast<std::size_t>(kv_head);
        return std::span(steps).subspan(static_cast<std::size_t>(begin[at]),
                                        static_cast<std::size_t>(begin[at + 1] - begin[at]));
    }
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

/// Gradients of keys or values, rows of `padded` floats for each query head.
struct HeadRows {
    float* data = nullptr;
    std::int64_t rows = 0;    ///< a head
    std::int64_t padded = 0;  ///< size of a head, up to the next multiple of 16

    [[nodiscard]] float* at(std::int64_t head, std::int64_t row) const {
        return data + (head * rows + row) * padded;
    }
};

/// What one KV head of one bundle sums up: for each query head of its group the gradients of keys
/// and values, rows counted from the bundle's first, sums over segments and not yet times `scale`.
struct Totals {
    HeadRows keys;
    HeadRows values;
};

/// Adds the query heads, each times `scale`, in the order of `steps`, to rows from `to` on.
/// @param total  the head that holds the total in the end
/// @param scratch  [group][padded]
template <class Element>
void add_heads(const HeadRows& heads, std::int64_t group, std::span<const HeadSum> steps,
               std::int64_t total, float scale, float* scratch, std::int64_t size, Element* to,
               std::int64_t stride) {
    const std::int64_t padded = heads.padded;
    for (std::int64_t row = 0; row < heads.rows; ++row) {
        for (std::int64_t head = 0; head < group; ++head) {
            const float* from = heads.at(head, row);
            float* scaled = scratch + head * padded;
            for (std::int64_t i = 0; i < padded; ++i) scaled[i] = from[i] * scale;
        }
        for (const HeadSum& step : steps)
            accumulate(scratch + step.from * padded, padded, scratch + step.to * padded);
        give(scratch + total * padded, size, to + row * stride);
    }
}

/// One call, on elements of one type.
template <class Element>
struct BackwardCall {
    const SegmentAttentionBackwardArgs& args;
    const HeadShape& shape;
    const AttentionPlan& plan;
    const HeadOrder& order;
    const AttentionKernels<Element>& kernels;
    SegmentKeys<Element> keys;
    const Element* q;
    const Element* out;
    const Element* dout;
    Element* dq;
    std::byte* dk;  ///< of the type of args.dk
    std::byte* dv;
    const float* maximum;
    const float* denominator;

    [[nodiscard]] std::int64_t padded_key() const { return round_up(shape.head_dim, 16); }
    [[nodiscard]] std::int64_t padded_value() const { return round_up(shape.value_dim, 16); }
    [[nodiscard]] std::int64_t total_floats(std::int64_t rows) const {
        return shape.group * rows * (padded_key() + padded_value());
    }
    [[nodiscard]] Totals totals_in(float* memory, std::int64_t rows) const {
        const HeadRows of_keys{memory, rows, padded_key()};
        return {.keys = of_keys, .values = {of_keys.at(shape.group, 0), rows, padded_value()}};
    }
    [[nodiscard]] std::int64_t head_scratch(std::int64_t positions) const {
        return positions * (padded_key() + padded_value()) +
               kernels.gradient_scratch(shape.head_dim, shape.value_dim);
    }
    [[nodiscard]] std::int64_t adding_scratch() const {
        return shape.group * std::max(padded_key(), padded_value());
    }

    /// Adds what segment `index` gives to the keys of its path; the first to give anything is
    /// stored, not added, and has its own keys' there already.
    void add_to_path(const AttentionPlan::Bundle& bundle, std::int64_t index, std::int64_t member,
                     const float* key_sums, const float* value_sums, const Totals& totals,
                     std::vector<char>& met) const {
        for (std::int64_t i = index; i >= 0;
             i = args.segments[static_cast<std::size_t>(i)].parent) {
            const AttentionSegment& above = args.segments[static_cast<std::size_t>(i)];
            char& met_before = met[static_cast<std::size_t>(i - bundle.segments.begin)];
            const auto add = [&](const float* part, const HeadRows& to_heads) {
                const float* from = part + above.position * to_heads.padded;
                const std::int64_t count = above.rows * to_heads.padded;
                float* to = to_heads.at(member, above.row_begin - bundle.rows.begin);
                if (met_before != 0) {
                    accumulate(from, count, to);
                } else if (i != index) {
                    std::copy_n(from, count, to);
                }
            };
            add(key_sums, totals.keys);
            add(value_sums, totals.values);
            met_before = 1;
        }
    }

    /// One query head, `member` of its KV head's group, of a bundle.
    /// @param blocks  of the bundle, of this KV head
    /// @param scratch  head_scratch() of its longest path
    void head_gradients(const AttentionPlan::Bundle& bundle, std::int64_t kv_head,
                        std::int64_t member, const float* blocks, std::int64_t block_stride,
                        const Totals& totals, float* scratch) const {
        const std::int64_t head = kv_head * shape.group + member;
        thread_local std::vector<char> met;
        met.assign(static_cast<std::size_t>(bundle.segments.size()), 0);
        float* const key_sums = scratch;
        float* const value_sums = key_sums + bundle.positions * padded_key();
        for (std::int64_t i = bundle.segments.begin; i < bundle.segments.end; ++i) {
            const AttentionSegment& segment = args.segments[static_cast<std::size_t>(i)];
            if (segment.rows == 0) continue;
            const std::int64_t row = segment.row_begin;
            const std::int64_t own = row - bundle.rows.begin;
            const bool first = met[static_cast<std::size_t>(i - bundle.segments.begin)] == 0;
            kernels.gradient({.q = q + row * args.q.stride + head * shape.head_dim,
                              .out = out + row * args.out.stride + head * shape.value_dim,
                              .dout = dout + row * args.dout.stride + head * shape.value_dim,
                              .q_stride = args.q.stride,
                              .out_stride = args.out.stride,
                              .dout_stride = args.dout.stride,
                              .rows = segment.rows,
                              .position = segment.position,
                              .head_dim = shape.head_dim,
                              .value_dim = shape.value_dim,
                              .scale = args.scale,
                              .maximum = maximum + row * args.heads + head,
                              .denominator = denominator + row * args.heads + head,
                              .statistics_stride = args.heads,
                              .blocks = blocks,
                              .block_stride = block_stride,
                              .table = plan.table(i),
                              .dq = dq + row * args.dq.stride + head * shape.head_dim,
                              .dq_stride = args.dq.stride,
                              .dk = key_sums,
                              .dv = value_sums,
                              .own_dk = first ? totals.keys.at(member, own)
                                              : key_sums + segment.position * totals.keys.padded,
                              .own_dv = first
                                            ? totals.values.at(member, own)
                                            : value_sums + segment.position * totals.values.padded,
                              .scratch = value_sums + bundle.positions * padded_value()});
            add_to_path(bundle, i, member, key_sums, value_sums, totals, met);
        }
    }

    /// dk and dv of a KV head's rows in a bundle, from those of its query heads.
    void finish(const AttentionPlan::Bundle& bundle, std::int64_t kv_head, const Totals& totals,
                float* scratch) const {
        const std::span<const HeadSum> steps = order.steps_of(kv_head);
        const std::int64_t total = order.total[static_cast<std::size_t>(kv_head)];
        with_elements(args.dk.dtype, [&]<class Result>(Result /*element*/) {
            add_heads(totals.keys, shape.group, steps, total, args.scale, scratch, shape.head_dim,
                      reinterpret_cast<Result*>(dk) + bundle.rows.begin * args.dk.stride +
                          kv_head * shape.head_dim,
                      args.dk.stride);
            add_heads(totals.values, shape.group, steps, total, 1.0F, scratch, shape.value_dim,
                      reinterpret_cast<Result*>(dv) + bundle.rows.begin * args.dv.stride +
                          kv_head * shape.value_dim,
                      args.dv.stride);
        });
    }

    /// One KV head of one bundle a task, which packs its keys and values and sums for itself: all
    /// of it stays in the caches.
    void by_bundles(ThreadTeam& team) const {
        const std::int64_t packed =
            keys.size * plan.most([](const auto& bundle) { return bundle.blocks.size(); });
        const std::int64_t summed =
            total_floats(plan.most([](const auto& bundle) { return bundle.rows.size(); }));
        const std::int64_t working =
            std::max(head_scratch(plan.most([](const auto& bundle) { return bundle.positions; })),
                     adding_scratch());
        team.run(std::ssize(plan.bundles) * shape.kv_heads, [&](std::int64_t task) {
            const auto& bundle = plan.bundles[static_cast<std::size_t>(task / shape.kv_heads)];
            const std::int64_t kv_head = task % shape.kv_heads;
            float* const blocks = task_scratch().take(packed + summed + working);
            float* const scratch = blocks + packed + summed;
            keys.pack_bundle(bundle, kv_head, blocks);
            const Totals totals = totals_in(blocks + packed, bundle.rows.size());
            for (std::int64_t member = 0; member < shape.group; ++member)
                head_gradients(bundle, kv_head, member, blocks, keys.size, totals, scratch);
            finish(bundle, kv_head, totals, scratch);
        });
    }

    /// All keys and values packed, then a query head of a bundle a task, for few or uneven
    /// bundles. Whoever does the last head of a KV head adds them all, while they are in the
    /// caches.
    /// @param packed  keys.floats() floats
    /// @param sums  kv_heads * total_floats(rows)
    void by_heads(ThreadTeam& team, float* packed, float* sums) const {
        keys.pack_all(team, packed);
        const std::int64_t bundles = std::ssize(plan.bundles);
        // Query heads of each bundle and KV head that are not done.
        thread_local std::vector<std::int64_t> kept_left;
        kept_left.assign(static_cast<std::size_t>(bundles * shape.kv_heads), shape.group);
        const std::span<std::int64_t> heads_left(kept_left);
        team.run(bundles * args.heads, [&](std::int64_t task) {
            const std::int64_t number = task / args.heads;
            const auto& bundle = plan.bundles[static_cast<std::size_t>(number)];
            const std::int64_t kv_head = task % args.heads / shape.group;
            const Totals totals =
                totals_in(sums + total_floats(bundle.rows.begin) * shape.kv_heads +
                              total_floats(bundle.rows.size()) * kv_head,
                          bundle.rows.size());
            head_gradients(bundle, kv_head, task % shape.group,
                           keys.in_all(packed, bundle, kv_head), keys.stride(), totals,
                           task_scratch().take(head_scratch(bundle.positions)));
            std::atomic_ref left(
                heads_left[static_cast<std::size_t>(number * shape.kv_heads + kv_head)]);
            if (left.fetch_sub(1, std::memory_order_acq_rel) == 1)
                finish(bundle, kv_head, totals, task_scratch().take(adding_scratch()));
        });
    }
};

}  // namespace

void CpuDevice::segment_attention_backward(const SegmentAttentionBackwardArgs& args,
                                           Stream& /*stream*/) {
    const HeadShape shape = check(args);
    // Kept by the calling thread, whose tasks other threads run: they see its own by reference.
    thread_local AttentionPlan kept_plan;
    plan_segments(args.segments, args.q.rows, kept_plan);
    const AttentionPlan& plan = kept_plan;
    thread_local HeadOrder kept_order;
    kept_order.plan(args.head_order, shape);
    with_elements(args.q.dtype, [&]<class Element>(Element /*element*/) {
        const AttentionKernels<Element>& kernels = attention_kernels<Element>(isa_);
        const BackwardCall<Element> call{
            .args = args,
            .shape = shape,
            .plan = plan,
            .order = kept_order,
            .kernels = kernels,
            .keys = {.plan = plan,
                     .shape = shape,
                     .k = elements<Element>(args.k),
                     .v = elements<Element>(args.v),
                     .k_stride = args.k.stride,
                     .v_stride = args.v.stride,
                     .pack = kernels.pack_backward,
                     .size = (2 * shape.head_dim + shape.value_dim) * kKeyBlock},
            .q = elements<Element>(args.q),
            .out = elements<Element>(args.out),
            .dout = elements<Element>(args.dout),
            .dq = elements<Element>(args.dq),
            .dk = at(args.dk.handle),
            .dv = at(args.dv.handle),
            .maximum = at(args.maximum),
            .denominator = at(args.denominator)};
        if (plan.bundles_fill(team_->threads(), shape.kv_heads)) return call.by_bundles(*team_);
        thread_local Scratch packed;
        thread_local Scratch sums;
        call.by_heads(*team_, packed.take(call.keys.floats()),
                      sums.take(shape.kv_heads * call.total_floats(args.q.rows)));
    });
}

}  // namespace rankwise::kernels::cpu
