// Attention of some rows of one KV head: the sequence of kernels/cpu/README.md, "Attention", in
// tiles of six rows.
#include "kernels/cpu/isa/attention_pack.hpp"
#include "kernels/cpu/isa/attention_state.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {

template <class Element>
void attend_forks(const AttentionForks<Element>& forks);
template <class Element>
void attention_gradient(const AttentionHeadGradient<Element>& head);
std::int64_t attention_gradient_scratch(std::int64_t head_dim, std::int64_t value_dim);

namespace {

template <class Element, class Block>
void attend(const AttentionRows<Element, Block>& a) {
    using Rows = BlockRows<Element, Block>;
    const std::int64_t pairs = a.rows * a.group;
    // Few rows read keys and values faster than they come.
    const bool few = pairs <= kTile;
    const State state = carve(a.scratch, pairs, a.head_dim, a.value_dim);
    const BlockShape shape{a.head_dim, a.value_dim, a.scale};
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
            const Block* next =
                key + kBlock < end ? a.blocks + a.table[key / kBlock + 1] * a.block_stride : block;
            for (std::int64_t pair = first_pair(key); pair < pairs; pair += kTile) {
                const std::int64_t count = pairs - pair < kTile ? pairs - pair : kTile;
                std::int64_t keys[kTile];
                for (std::int64_t r = 0; r < count; ++r) {
                    const std::int64_t known = a.position + (pair + r) / a.group + 1 - key;
                    keys[r] = known < kBlock ? known : kBlock;
                }
                if (few) {
                    attend_block<Fetching<typename Rows::Keys>, Fetching<typename Rows::Values>>(
                        shape, state, block, pair, count, keys, next);
                } else {
                    attend_block<typename Rows::Keys, typename Rows::Values>(
                        shape, state, block, pair, count, keys, block);
                }
            }
        }
        end_span(state, first_pair(span), pairs, span > 0);
    }
    for (std::int64_t i = 0; i < pairs; ++i) {
        const std::int64_t row = i / a.group;
        const std::int64_t head = i % a.group;
        finish_pair(state, i, a.value_dim, a.out + row * a.out_stride + head * a.value_dim);
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
                                                       attend_forks<Element>,
                                                       pack_forward<Element>,
                                                       pack_backward<Element>,
                                                       attention_gradient_scratch,
                                                       attention_gradient<Element>};
    return kernels;
}
template const AttentionKernels<float>& attention_kernels();
template const AttentionKernels<std::uint16_t>& attention_kernels();

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
