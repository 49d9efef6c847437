// The forward pass of attention in pieces: rows that are attended to together, and a KV head's
// operands.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cpu/attention_call.hpp"

namespace rankwise::kernels::cpu {

/// Rows of one segment or run that are attended to together; or runs of one row each that share a
/// beginning: `forks` of them, from `source` on in a list of forks.
struct Chunk {
    std::int32_t source = 0;
    std::int64_t row = 0;  ///< inside the source
    std::int64_t rows = 0;
    std::int64_t forks = 0;
    std::int64_t shared = 0;  ///< positions, of forks
};

/// (row, head) pairs a chunk: eight register tiles, whose state stays in the nearest cache.
inline constexpr std::int64_t kChunkPairs = 48;
/// The same behind so many keys that those come from memory, which each chunk reads once.
inline constexpr std::int64_t kManyKeys = 8192;
inline constexpr std::int64_t kChunkPairsOfMany = 192;

inline void append_chunks(std::int64_t source, std::int64_t position, std::int64_t rows,
                          std::int64_t group, std::vector<Chunk>& chunks) {
    for (std::int64_t row = 0; row < rows;) {
        const std::int64_t pairs = position + row < kManyKeys ? kChunkPairs : kChunkPairsOfMany;
        const std::int64_t most = std::max<std::int64_t>(1, pairs / group);
        chunks.push_back({narrow<std::int32_t>(source), row, std::min(most, rows - row)});
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
