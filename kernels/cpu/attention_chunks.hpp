// The forward pass of attention in pieces: rows that are attended to together, and a KV head's
// operands.
#pragma once

#include <algorithm>

#include "kernels/cpu/attention_call.hpp"

namespace rankwise::kernels::cpu {

/// (row, head) pairs a chunk: eight register tiles, whose state stays in the nearest cache.
inline constexpr std::int64_t kChunkPairs = 48;
/// The same behind so many keys that those come from memory, which each chunk reads once.
inline constexpr std::int64_t kManyKeys = 8192;
inline constexpr std::int64_t kChunkPairsOfMany = 192;

/// Rows of a chunk at most, of so many query heads a KV head.
[[nodiscard]] constexpr std::int64_t chunk_rows(std::int64_t pairs, std::int64_t group) {
    return std::max<std::int64_t>(1, pairs / group);
}

/// body(rows) for the chunks of rows [0, rows) at positions from `position` on.
template <class Body>
void each_chunk(std::int64_t position, std::int64_t rows, std::int64_t group, const Body& body) {
    for (std::int64_t row = 0; row < rows;) {
        const bool many = position + row >= kManyKeys;
        const std::int64_t most = chunk_rows(many ? kChunkPairsOfMany : kChunkPairs, group);
        body(Range{row, std::min(row + most, rows)});
        row += most;
    }
}

/// Elements of one head's part of a block.
[[nodiscard]] inline std::int64_t block_size(const HeadShape& shape) {
    return (shape.head_dim + shape.value_dim) * kKeyBlock;
}

/// A KV head of an op's operands, from row 0 on; its scratch memory is still to be given.
/// @param blocks  of this head
template <class Element, class Block, class Args>
AttentionHead<Element, Block> head_of(const HeadShape& shape, std::int64_t head, const Args& args,
                                      const Element* q, Element* out, const Block* blocks,
                                      std::int64_t block_stride) {
    const std::int64_t first = head * shape.group;
    return {.q = q + first * shape.head_dim,
            .q_stride = args.q.stride,
            .out = out + first * shape.value_dim,
            .out_stride = args.out.stride,
            .group = shape.group,
            .head_dim = shape.head_dim,
            .value_dim = shape.value_dim,
            .scale = args.scale,
            .blocks = blocks,
            .block_stride = block_stride};
}

/// From row `row` on.
template <class Element, class Block>
void to_row(AttentionHead<Element, Block>& head, std::int64_t row) {
    head.q += row * head.q_stride;
    head.out += row * head.out_stride;
}

}  // namespace rankwise::kernels::cpu
