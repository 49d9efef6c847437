// Attention of some (row, head) pairs block by block: their state, and what a block, the end of a
// span and the end of all do to it. The sequence is that of kernels/cpu/README.md, "Attention".
#pragma once

#include "kernels/cpu/isa/attention_row.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

constexpr std::int64_t kSpan = 2048;

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

[[maybe_unused]] std::int64_t rows_scratch(std::int64_t pairs, std::int64_t head_dim,
                                           std::int64_t value_dim) {
    const std::int64_t padded = round_up_16(value_dim);
    return pairs * (round_up_16(head_dim) + 2 * padded + kLanes) + 3 * round_up_16(pairs) +
           kTile * kBlock;
}

/// The state of `pairs` pairs in scratch memory of rows_scratch() floats.
HWY_INLINE State carve(float* scratch, std::int64_t pairs, std::int64_t head_dim,
                       std::int64_t value_dim) {
    State state{};
    state.q_padded = round_up_16(head_dim);
    state.padded = round_up_16(value_dim);
    float* next = scratch;
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

/// How keys and values of a block lie: packed, or a page of bf16. What is called `ahead` below is a
/// block that Fetching kinds fetch in the meantime.
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

/// Scores, not yet scaled, of pairs [pair, pair + count) with the keys of a block that lie in
/// columns from `begin`, a multiple of 16, up to `end` or a little further; rows from `row` on of
/// the scores.
template <class Keys, class Element, class Block>
void block_scores(const AttentionHead<Element, Block>& head, const State& state, const Block* block,
                  std::int64_t pair, std::int64_t count, std::int64_t row, std::int64_t begin,
                  std::int64_t end, const Block* ahead) {
    // Of words: an element, or a pair of them.
    using Word = typename Keys::Element;
    const std::int64_t panel = head.head_dim * kLanes * static_cast<std::int64_t>(sizeof(Block)) /
                               static_cast<std::int64_t>(sizeof(Word));
    const auto product = [&](std::int64_t j, std::int64_t columns) {
        return ProductOf<Word>{.a = state.q + pair * state.q_padded,
                               .a_row = state.q_padded,
                               .a_step = 1,
                               .b = reinterpret_cast<const Word*>(block) + j / kLanes * panel,
                               .b_step = kLanes,
                               .c = state.scores + row * kBlock + j,
                               .c_row = kBlock,
                               .rows = count,
                               .columns = columns,
                               .steps = head.head_dim,
                               .ahead = reinterpret_cast<const Word*>(ahead) + j / kLanes * panel,
                               .b_panel = panel};
    };
    if constexpr (Keys::kFetches) {  // from memory panels come faster one after the other
        for (std::int64_t j = begin; j < end; j += kLanes)
            multiply<Keys, false>(product(j, kLanes));
    } else {
        multiply<InPanels<Keys>, false>(product(begin, round_up_16(end - begin)));
    }
}

/// The values of a block's keys from `begin` on times their probabilities, as the product of
/// pairs [pair, pair + count), whose probabilities stand in rows from `row` on.
template <class Element, class Block>
ProductOf<Block> block_values(const AttentionHead<Element, Block>& head, const State& state,
                              const Block* block, std::int64_t pair, std::int64_t count,
                              std::int64_t row, std::int64_t begin, std::int64_t end,
                              const Block* ahead) {
    const std::int64_t first = head.head_dim * kBlock + begin * head.value_dim;
    return {.a = state.scores + row * kBlock + begin,
            .a_row = kBlock,
            .a_step = 1,
            .b = block + first,
            .b_step = head.value_dim,
            .c = state.o + pair * state.padded,
            .c_row = state.padded,
            .rows = count,
            .columns = head.value_dim,
            .steps = end - begin,
            .ahead = ahead + first};
}

/// One block for `count` <= kTile pairs from `pair` on, keys ascending with the row.
template <class Keys, class Values, class Element, class Block>
void attend_block(const AttentionHead<Element, Block>& head, const State& state, const Block* block,
                  std::int64_t pair, std::int64_t count, const std::int64_t* keys,
                  const Block* ahead) {
    block_scores<Keys>(head, state, block, pair, count, 0, 0, keys[count - 1], ahead);
    probabilities(state, pair, count, keys, head.scale);
    multiply_stairs<Values>(block_values(head, state, block, pair, count, 0, 0, 0, ahead), keys);
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

/// out = o / l of one pair.
template <class Element>
void finish_pair(const State& state, std::int64_t pair, std::int64_t value_dim, Element* out) {
    const F16 l = set(state.merged_l[pair]);
    const float* merged = state.merged_o + pair * state.padded;
    each_sixteen(value_dim, [&](std::int64_t d, auto lanes)
                                RANKWISE_INLINE { lanes.store(load(merged + d) / l, out + d); });
}

}  // namespace
}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
