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
    const AttentionHead<Element, Block>& head = a.head;
    const std::int64_t pairs = a.rows * head.group;
    // Few rows read keys and values faster than they come.
    const bool few = pairs <= kTile;
    const State state = carve(head.scratch, pairs, head.head_dim, head.value_dim);
    for (std::int64_t i = 0; i < pairs; ++i) {
        const Element* q =
            head.q + (i / head.group) * head.q_stride + (i % head.group) * head.head_dim;
        fetch_later(q + a.rows * head.q_stride, head.head_dim);
        copy(q, head.head_dim, state.q + i * state.q_padded);
    }
    const std::int64_t end = a.position + a.rows;
    /// The first pair with a key at `position` or behind it.
    const auto first_pair = [&](std::int64_t position) {
        return position > a.position ? (position - a.position) * head.group : 0;
    };
    for (std::int64_t span = 0; span < end; span += kSpan) {
        const std::int64_t span_end = span + kSpan < end ? span + kSpan : end;
        begin_span(state, first_pair(span), pairs);
        for (std::int64_t key = span; key < span_end; key += kBlock) {
            const Block* block = head.blocks + a.table[key / kBlock] * head.block_stride;
            const Block* next = key + kBlock < end
                                    ? head.blocks + a.table[key / kBlock + 1] * head.block_stride
                                    : block;
            for (std::int64_t pair = first_pair(key); pair < pairs; pair += kTile) {
                const std::int64_t count = pairs - pair < kTile ? pairs - pair : kTile;
                std::int64_t keys[kTile];
                for (std::int64_t r = 0; r < count; ++r) {
                    const std::int64_t known = a.position + (pair + r) / head.group + 1 - key;
                    keys[r] = known < kBlock ? known : kBlock;
                }
                if (few) {
                    attend_block<Fetching<typename Rows::Keys>, Fetching<typename Rows::Values>>(
                        head, state, block, pair, count, keys, next);
                } else {
                    attend_block<typename Rows::Keys, typename Rows::Values>(
                        head, state, block, pair, count, keys, block);
                }
            }
        }
        end_span(state, first_pair(span), pairs, span > 0);
    }
    for (std::int64_t i = 0; i < pairs; ++i) {
        const std::int64_t row = i / head.group;
        const std::int64_t member = i % head.group;
        finish_pair(state, i, head.value_dim,
                    head.out + row * head.out_stride + member * head.value_dim);
        if (a.maximum != nullptr) {
            a.maximum[row * a.statistics_stride + member] = state.merged_m[i] + 0.0F;  // never -0
            a.denominator[row * a.statistics_stride + member] = state.merged_l[i];
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
