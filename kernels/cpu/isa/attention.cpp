// Attention of some rows of one KV head: the sequence of kernels/cpu/README.md, "Attention", in
// tiles of six rows.
#include "kernels/cpu/isa/attention_pack.hpp"
#include "kernels/cpu/isa/attention_row.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {

template <class Element>
void attention_gradient(const AttentionHeadGradient<Element>& head);
std::int64_t attention_gradient_scratch(std::int64_t head_dim, std::int64_t value_dim);

namespace {

constexpr std::int64_t kSpan = 2048;
constexpr std::int64_t kTile = 6;

/// The state of `pairs` (row, head) pairs. o, l and m are of the span at hand, the merged ones of
/// the spans before it.
struct State {
    float* q;      // [pairs][q_padded]
    float* o;      // [pairs][padded]
    float* lanes;  // [pairs][16]
    float* m;      // [pairs]
    float* merged_o;
    float* merged_l;
    float* merged_m;
    float* scores;  // [kTile][64]
    std::int64_t q_padded;
    std::int64_t padded;  // of values
};

std::int64_t rows_scratch(std::int64_t pairs, std::int64_t head_dim, std::int64_t value_dim) {
    const std::int64_t padded = round_up_16(value_dim);
    return pairs * (round_up_16(head_dim) + 2 * padded + kLanes) + 3 * round_up_16(pairs) +
           kTile * kBlock;
}

template <class Element, class Block>
State carve(const AttentionRows<Element, Block>& a, std::int64_t pairs) {
    State state{};
    state.q_padded = round_up_16(a.head_dim);
    state.padded = round_up_16(a.value_dim);
    float* next = a.scratch;
    const auto take = [&next](std::int64_t floats) {
        float* taken = next;
        next += floats;
        return taken;
    };
    state.q = take(pairs * state.q_padded);
    state.o = take(pairs * state.padded);
    state.merged_o = take(pairs * state.padded);
    state.lanes = take(pairs * kLanes);
    state.m = take(round_up_16(pairs));
    state.merged_l = take(round_up_16(pairs));
    state.merged_m = take(round_up_16(pairs));
    state.scores = take(kTile * kBlock);
    return state;
}

void begin_span(const State& state, std::int64_t first, std::int64_t pairs) {
    for (std::int64_t i = first; i < pairs; ++i) {
        for (std::int64_t d = 0; d < state.padded; d += kLanes) {
            store(zero(), state.o + i * state.padded + d);
        }
        store(zero(), state.lanes + i * kLanes);
        state.m[i] = kMinusInfinity;
    }
}

/// Scores to probabilities for `count` pairs from `pair` on; keys[r] of the block's keys are row
/// r's.
void probabilities(const State& state, std::int64_t pair, std::int64_t count,
                   const std::int64_t* keys, float scale) {
    alignas(64) float fall[kLanes] = {};  // old maximum - new maximum
    bool risen = false;
    for (std::int64_t r = 0; r < count; ++r) {
        float* s = state.scores + r * kBlock;
        const float top = scale_and_top(s, keys[r], scale);
        float& m = state.m[pair + r];
        if (top > m) {
            fall[r] = m - top;
            m = top;
            risen = true;
        }
    }
    if (risen) {
        store(exp(load(fall)), fall);
        for (std::int64_t r = 0; r < count; ++r) {
            if (fall[r] == 1.0F) continue;  // times one changes nothing
            const F16 c = set(fall[r]);
            float* lanes = state.lanes + (pair + r) * kLanes;
            store(load(lanes) * c, lanes);
            float* o = state.o + (pair + r) * state.padded;
            for (std::int64_t d = 0; d < state.padded; d += kLanes) {
                store(load(o + d) * c, o + d);
            }
        }
    }
    for (std::int64_t r = 0; r < count; ++r) {
        float* s = state.scores + r * kBlock;
        const F16 m = set(state.m[pair + r]);
        F16 lanes = load(state.lanes + (pair + r) * kLanes);
        for (std::int64_t j = 0; j < keys[r]; j += kLanes) {
            const F16 p = keep_first(exp(load(s + j) - m), keys[r] - j);
            lanes =
                lanes + p;  // behind the last key p is +0 and a lane is never -0: nothing is added
            store(p, s + j);
        }
        store(lanes, state.lanes + (pair + r) * kLanes);
    }
}

/// How keys and values of a block lie: packed, or a page of bf16.
template <class Element, class Block>
struct BlockRows {
    using Keys = typename DotRows<Element>::Packed;
    using Values = FloatRows;
};
template <>
struct BlockRows<std::uint16_t, std::uint16_t> {
    using Keys = Bf16Pairs;
    using Values = Bf16Rows;
};

/// One block for `count` <= kTile pairs from `pair` on, keys ascending with the row.
template <class Element, class Block>
void attend_block(const AttentionRows<Element, Block>& a, const State& state, const Block* block,
                  std::int64_t pair, std::int64_t count, const std::int64_t* keys) {
    using Keys = typename BlockRows<Element, Block>::Keys;
    multiply<Keys, false>({.a = state.q + pair * state.q_padded,
                           .a_row = state.q_padded,
                           .a_step = 1,
                           .b = reinterpret_cast<const typename Keys::Element*>(block),
                           .b_step = kBlock,
                           .c = state.scores,
                           .c_row = kBlock,
                           .rows = count,
                           .columns = round_up_16(keys[count - 1]),
                           .steps = a.head_dim});
    probabilities(state, pair, count, keys, a.scale);
    multiply_stairs<typename BlockRows<Element, Block>::Values>({.a = state.scores,
                                                                 .a_row = kBlock,
                                                                 .a_step = 1,
                                                                 .b = block + a.head_dim * kBlock,
                                                                 .b_step = a.value_dim,
                                                                 .c = state.o + pair * state.padded,
                                                                 .c_row = state.padded,
                                                                 .rows = count,
                                                                 .columns = a.value_dim,
                                                                 .steps = 0},
                                                                keys);
}

/// Adds the span to the spans before it: c = exp(m - M), x = fma(x2, c2, x1 * c1).
void end_span(const State& state, std::int64_t first, std::int64_t pairs, bool merge) {
    for (std::int64_t i = first; i < pairs; ++i) {
        const float l = sum(load(state.lanes + i * kLanes));
        const float* o = state.o + i * state.padded;
        float* merged = state.merged_o + i * state.padded;
        if (!merge) {
            for (std::int64_t d = 0; d < state.padded; d += kLanes) store(load(o + d), merged + d);
            state.merged_l[i] = l;
            state.merged_m[i] = state.m[i];
            continue;
        }
        const float m1 = state.merged_m[i];
        const float m2 = state.m[i];
        const float top = m2 > m1 ? m2 : m1;
        const F16 c1 = exp(set(m1 - top));
        const F16 c2 = exp(set(m2 - top));
        for (std::int64_t d = 0; d < state.padded; d += kLanes) {
            store(fma(load(o + d), c2, load(merged + d) * c1), merged + d);
        }
        state.merged_l[i] = __builtin_fmaf(l, lane_0(c2), state.merged_l[i] * lane_0(c1));
        state.merged_m[i] = top;
    }
}

/// The beginning of memory that is read next, where a few rows read keys and values faster than
/// they come: the rest is then brought by the processor itself, which sees it read in order.
void prefetch_beginning(const void* block) {
    constexpr std::int64_t kBytes = 4096;
    constexpr std::int64_t kLine = 64;
    for (std::int64_t i = 0; i < kBytes; i += kLine)
        __builtin_prefetch(static_cast<const char*>(block) + i, 0, 2);
}

template <class Element, class Block>
void attend(const AttentionRows<Element, Block>& a) {
    const std::int64_t pairs = a.rows * a.group;
    // Short contexts are often of one prompt, which then comes from the caches.
    const bool streams = pairs <= kTile && a.position + a.rows > 8 * kBlock;
    const State state = carve(a, pairs);
    for (std::int64_t i = 0; i < pairs; ++i) {
        copy(a.q + (i / a.group) * a.q_stride + (i % a.group) * a.head_dim, a.head_dim,
             state.q + i * state.q_padded);
    }
    const std::int64_t end = a.position + a.rows;
    /// The first pair with a key at `position` or behind it.
    const auto first_pair = [&](std::int64_t position) {
        return position > a.position ? (position - a.position) * a.group : 0;
    };
    for (std::int64_t span = 0; span < end; span += kSpan) {
        const std::int64_t span_end = span + kSpan < end ? span + kSpan : end;
        begin_span(state, first_pair(span), pairs);
        for (std::int64_t key = span; key < span_end; key += kBlock) {
            const Block* block = a.blocks + a.table[key / kBlock] * a.block_stride;
            if (streams && key + kBlock < end)
                prefetch_beginning(a.blocks + a.table[key / kBlock + 1] * a.block_stride);
            for (std::int64_t pair = first_pair(key); pair < pairs; pair += kTile) {
                const std::int64_t count = pairs - pair < kTile ? pairs - pair : kTile;
                std::int64_t keys[kTile];
                for (std::int64_t r = 0; r < count; ++r) {
                    const std::int64_t known = a.position + (pair + r) / a.group + 1 - key;
                    keys[r] = known < kBlock ? known : kBlock;
                }
                attend_block(a, state, block, pair, count, keys);
            }
        }
        end_span(state, first_pair(span), pairs, span > 0);
    }
    for (std::int64_t i = 0; i < pairs; ++i) {
        const std::int64_t row = i / a.group;
        const std::int64_t head = i % a.group;
        const F16 l = set(state.merged_l[i]);
        const float* merged = state.merged_o + i * state.padded;
        Element* out = a.out + row * a.out_stride + head * a.value_dim;
        each_sixteen(a.value_dim, [&](std::int64_t d, auto lanes) RANKWISE_INLINE {
            lanes.store(load(merged + d) / l, out + d);
        });
        if (a.maximum != nullptr) {
            a.maximum[row * a.statistics_stride + head] = state.merged_m[i] + 0.0F;  // never -0
            a.denominator[row * a.statistics_stride + head] = state.merged_l[i];
        }
    }
}

}  // namespace

template <class Element>
const AttentionKernels<Element>& attention_kernels() {
    static constexpr AttentionKernels<Element> kernels{rows_scratch,
                                                       attend<Element, float>,
                                                       attend<Element, Element>,
                                                       pack_forward<Element>,
                                                       pack_backward<Element>,
                                                       attention_gradient_scratch,
                                                       attention_gradient<Element>};
    return kernels;
}
template const AttentionKernels<float>& attention_kernels();
template const AttentionKernels<std::uint16_t>& attention_kernels();

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
