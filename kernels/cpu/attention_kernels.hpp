// What an instruction set provides for attention of elements float, or std::uint16_t: bf16. Blocks
// are 64 keys; a block's memory is described where it is used.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// One KV head with all its query heads, and what their rows are attended with: blocks of keys and
/// values that were packed (Block is float), or are pages of the cache.
template <class Element, class Block>
struct AttentionHead {
    const Element* q = nullptr;  ///< row r, head g of the group: q + r * q_stride + g * head_dim
    std::int64_t q_stride = 0;
    Element* out = nullptr;  ///< row r, head g: out + r * out_stride + g * value_dim
    std::int64_t out_stride = 0;
    std::int64_t group = 1;  ///< query heads of the KV head
    std::int64_t head_dim = 0;
    std::int64_t value_dim = 0;
    float scale = 1.0F;
    /// A block: blocks + its number * block_stride: K [4][head_dim][16] (of a page of bf16:
    /// [4][head_dim / 2][16][2]), V [64][value_dim].
    const Block* blocks = nullptr;
    std::int64_t block_stride = 0;
    float* scratch = nullptr;  ///< rows_scratch() floats, aligned to 64 bytes
};

/// Rows [0, rows) of q at positions [position, position + rows) of their sequence, of which block i
/// (positions 64 i ...) is number table[i].
template <class Element, class Block>
struct AttentionRows {
    AttentionHead<Element, Block> head;
    std::int64_t rows = 0;
    std::int64_t position = 0;
    const std::int32_t* table = nullptr;
    float* maximum = nullptr;  ///< row r, head g: r * statistics_stride + g; null: not wanted
    float* denominator = nullptr;
    std::int64_t statistics_stride = 0;
};

/// A row of a sequence of its own.
struct AttentionFork {
    std::int64_t row = 0;  ///< of q and out
    std::int64_t position = 0;
    const std::int32_t* table = nullptr;  ///< of the sequence's pages
};

/// One row each of sequences that hold the same keys and values at positions [0, shared), in pages
/// of the cache.
template <class Element>
struct AttentionForks {
    AttentionHead<Element, Element> head;
    const AttentionFork* forks = nullptr;  ///< positions ascend, none below `shared`
    std::int64_t count = 0;
    std::int64_t shared = 0;
};

/// Rows of K and V of one KV head, to be laid out as a block.
template <class Element>
struct AttentionBlock {
    const Element* k = nullptr;  ///< key j: k + rows[j] * k_stride
    const Element* v = nullptr;
    std::int64_t k_stride = 0;
    std::int64_t v_stride = 0;
    const std::int64_t* rows = nullptr;  ///< 64 of them
    std::int64_t keys = 64;  ///< that exist; up to the next multiple of 16 they are written
    std::int64_t head_dim = 0;
    std::int64_t value_dim = 0;
    float* to = nullptr;
};

/// One query head of one segment: its rows against the blocks of its path.
template <class Element>
struct AttentionHeadGradient {
    const Element* q = nullptr;  ///< row r: q + r * q_stride
    const Element* out = nullptr;
    const Element* dout = nullptr;
    std::int64_t q_stride = 0;
    std::int64_t out_stride = 0;
    std::int64_t dout_stride = 0;
    std::int64_t rows = 0;  ///< at positions [position, position + rows)
    std::int64_t position = 0;
    std::int64_t head_dim = 0;
    std::int64_t value_dim = 0;
    float scale = 1.0F;
    const float* maximum = nullptr;  ///< row r: r * statistics_stride
    const float* denominator = nullptr;
    std::int64_t statistics_stride = 0;
    /// Block i: blocks + table[i] * block_stride: K [head_dim][64], V [value_dim][64], K
    /// [64][head_dim].
    const float* blocks = nullptr;
    std::int64_t block_stride = 0;
    const std::int32_t* table = nullptr;
    Element* dq = nullptr;  ///< row r: dq + r * dq_stride; finished
    std::int64_t dq_stride = 0;
    /// Sums over the rows for the keys before `position`, from zero, not yet times scale: position
    /// p: dk + p * head_dim rounded up to 16, dv + p * value_dim rounded up to 16.
    float* dk = nullptr;
    float* dv = nullptr;
    /// The same for the rows' own keys, from position `position` on.
    float* own_dk = nullptr;
    float* own_dv = nullptr;
    float* scratch = nullptr;  ///< gradient_scratch() floats, aligned to 64 bytes
};

template <class Element>
struct AttentionKernels {
    /// Floats of scratch for what attends: `pairs` is rows (or forks) * group.
    std::int64_t (*rows_scratch)(std::int64_t pairs, std::int64_t head_dim, std::int64_t value_dim);
    void (*attend)(const AttentionRows<Element, float>& rows);
    void (*attend_pages)(const AttentionRows<Element, Element>& rows);
    void (*attend_forks)(const AttentionForks<Element>& forks);
    /// K [4][head_dim][16], V [64][value_dim], widened.
    void (*pack_forward)(const AttentionBlock<Element>& block);
    /// K [head_dim][64], V [value_dim][64], K [64][head_dim], widened.
    void (*pack_backward)(const AttentionBlock<Element>& block);
    std::int64_t (*gradient_scratch)(std::int64_t head_dim, std::int64_t value_dim);
    void (*gradient)(const AttentionHeadGradient<Element>& head);
};

namespace avx2 {
template <class Element>
const AttentionKernels<Element>& attention_kernels();
}
namespace avx512 {
template <class Element>
const AttentionKernels<Element>& attention_kernels();
}

}  // namespace rankwise::kernels::cpu
