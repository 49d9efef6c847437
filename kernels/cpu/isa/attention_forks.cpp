// Attention of forks, sequences that begin alike and take one row each: keys and values of what
// they share are read once for all of them. A row's sequence of operations is that of
// attention.cpp: a dot product and a step of a sum take no notice of the rows beside them.
#include "kernels/cpu/isa/attention_state.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

constexpr std::int64_t least(std::int64_t a, std::int64_t b) {
    return a < b ? a : b;
}

/// Block `block` of a fork.
template <class Element>
const Element* page_of(const AttentionForks<Element>& forks, std::int64_t fork,
                       std::int64_t block) {
    return forks.head.blocks + forks.forks[fork].table[block] * forks.head.block_stride;
}

/// The block in which what `forks` share ends, for `count` <= kTile pairs from `pair` on: its first
/// `shared` keys from the first fork's page, the others from each fork's own.
template <class Element>
void attend_border(const AttentionForks<Element>& forks, const State& state, std::int64_t block,
                   std::int64_t pair, std::int64_t count) {
    using Keys = typename BlockRows<Element, Element>::Keys;
    using Values = typename BlockRows<Element, Element>::Values;
    const std::int64_t shared = forks.shared - block * kBlock;
    const Element* const first = page_of(forks, 0, block);
    /// Calls body(fork, row, rows) for the rows of the tile that are one fork's.
    const auto each_fork = [&](const auto& body) {
        for (std::int64_t row = 0; row < count;) {
            const std::int64_t fork = (pair + row) / forks.head.group;
            const std::int64_t rows = least((fork + 1) * forks.head.group - pair, count) - row;
            body(fork, row, rows);
            row += rows;
        }
    };
    const auto keys_of = [&](std::int64_t fork) {
        return least(forks.forks[fork].position + 1 - block * kBlock, kBlock);
    };

    const auto after = [&](std::int64_t fork) {
        return page_of(forks, fork + 1 < forks.count ? fork + 1 : fork, block);
    };
    block_scores<Keys>(forks.head, state, first, pair, count, 0, 0, shared, first);
    std::int64_t keys[kTile];
    each_fork([&](std::int64_t fork, std::int64_t row, std::int64_t rows) {
        // From the last whole sixteen on: what was read behind the shared keys is replaced.
        block_scores<Fetching<Keys>>(forks.head, state, page_of(forks, fork, block), pair + row,
                                     rows, row, shared / kLanes * kLanes, keys_of(fork),
                                     after(fork));
        for (std::int64_t r = row; r < row + rows; ++r) keys[r] = keys_of(fork);
    });
    probabilities(state, pair, count, keys, forks.head.scale);
    multiply<Values, true>(
        block_values(forks.head, state, first, pair, count, 0, 0, shared, first));
    each_fork([&](std::int64_t fork, std::int64_t row, std::int64_t rows) {
        multiply<Fetching<Values>, true>(block_values(forks.head, state,
                                                      page_of(forks, fork, block), pair + row, rows,
                                                      row, shared, keys_of(fork), after(fork)));
    });
}

/// A fork's own blocks [key, end), keys ascending.
template <class Element>
void attend_own(const AttentionForks<Element>& forks, const State& state, std::int64_t fork,
                std::int64_t key, std::int64_t end) {
    using Keys = Fetching<typename BlockRows<Element, Element>::Keys>;
    using Values = Fetching<typename BlockRows<Element, Element>::Values>;
    const std::int64_t first = key / kBlock;
    for (; key < end; key += kBlock) {
        const std::int64_t block = key / kBlock;
        const Element* here = page_of(forks, fork, block);
        // The next block; behind the last the next fork's first.
        const Element* next = key + kBlock < end       ? page_of(forks, fork, block + 1)
                              : fork + 1 < forks.count ? page_of(forks, fork + 1, first)
                                                       : here;
        std::int64_t keys[kTile];
        for (std::int64_t& some : keys) some = least(end - key, kBlock);
        for (std::int64_t member = 0; member < forks.head.group; member += kTile) {
            attend_block<Keys, Values>(forks.head, state, here, fork * forks.head.group + member,
                                       least(forks.head.group - member, kTile), keys, next);
        }
    }
}

/// A block of which all forks share some keys, or all.
template <class Element>
void attend_shared(const AttentionForks<Element>& forks, const State& state, std::int64_t block) {
    using Keys = typename BlockRows<Element, Element>::Keys;
    using Values = typename BlockRows<Element, Element>::Values;
    constexpr std::int64_t kWhole[kTile] = {kBlock, kBlock, kBlock, kBlock, kBlock, kBlock};
    const std::int64_t pairs = forks.count * forks.head.group;
    const std::int64_t behind = (block + 1) * kBlock;
    const Element* here = page_of(forks, 0, block);
    const Element* next = behind < forks.shared ? page_of(forks, 0, block + 1) : here;
    for (std::int64_t pair = 0; pair < pairs; pair += kTile) {
        const std::int64_t count = least(pairs - pair, kTile);
        if (behind > forks.shared) {
            attend_border(forks, state, block, pair, count);
        } else if (pair == 0) {  // brings the next block for all
            attend_block<Fetching<Keys>, Fetching<Values>>(forks.head, state, here, pair, count,
                                                           kWhole, next);
        } else {
            attend_block<Keys, Values>(forks.head, state, here, pair, count, kWhole, here);
        }
    }
}

}  // namespace

template <class Element>
void attend_forks(const AttentionForks<Element>& forks) {
    const AttentionHead<Element, Element>& head = forks.head;
    const std::int64_t group = head.group;
    const std::int64_t pairs = forks.count * group;
    const State state = carve(head.scratch, pairs, head.head_dim, head.value_dim);
    for (std::int64_t i = 0; i < pairs; ++i) {
        copy(head.q + forks.forks[i / group].row * head.q_stride + i % group * head.head_dim,
             head.head_dim, state.q + i * state.q_padded);
    }
    const std::int64_t end = forks.forks[forks.count - 1].position + 1;
    std::int64_t first = 0;  // fork that reaches the span: positions ascend
    for (std::int64_t span = 0; span < end; span += kSpan) {
        while (forks.forks[first].position < span) ++first;
        begin_span(state, first * group, pairs);
        const std::int64_t span_end = least(span + kSpan, end);
        std::int64_t key = span;
        for (; key < span_end && key < forks.shared; key += kBlock)
            attend_shared(forks, state, key / kBlock);
        for (std::int64_t fork = first; fork < forks.count; ++fork) {
            attend_own(forks, state, fork, key, least(forks.forks[fork].position + 1, span_end));
        }
        end_span(state, first * group, pairs, span > 0);
    }
    for (std::int64_t i = 0; i < pairs; ++i) {
        finish_pair(
            state, i, head.value_dim,
            head.out + forks.forks[i / group].row * head.out_stride + i % group * head.value_dim);
    }
}

template void attend_forks(const AttentionForks<float>& forks);
template void attend_forks(const AttentionForks<std::uint16_t>& forks);

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
