// Causal attention with grouped KV heads (Ainslie et al. 2023): over a paged cache (generation),
// and over the segments of a micro-batch (training). One sequence of operations for a row in every
// case: NUMERICS N5, in full in kernels/cpu/README.md. Values may be narrower or wider than keys,
// and may be the first columns of the keys: latent attention in its absorbed form is one KV head
// whose key is [latent | rope] and whose value is the latent. Everything is f32, or everything bf16
// (even sizes): then the dot products q.k and dout.v go in pairs (N1), other sums take widened
// elements, and each result is rounded once; statistics are f32.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.hpp"
#include "kernels/tensor.hpp"
#include "src/base/reduction.hpp"

namespace rankwise::kernels {

/// Keys a block; a page of the cache is one block, aligned to position 0.
inline constexpr std::int64_t kKeyBlock = 64;
/// Keys whose elements lie side by side in a page.
inline constexpr std::int64_t kKeyPanel = 16;
/// Keys a span: denominators persist in lanes inside one, spans are merged ascending.
inline constexpr std::int64_t kKeySpan = 2048;

/// The cache of one layer: `pages` pages of kKeyBlock positions. Page p, KV head h starts at
/// element (p * kv_heads + h) * (head_dim + value_dim) * kKeyBlock and holds K in panels of
/// kKeyPanel keys, [kKeyBlock / kKeyPanel][head_dim][kKeyPanel], of bf16 [kKeyBlock / kKeyPanel]
/// [head_dim / 2][kKeyPanel][2], then V as [kKeyBlock][value_dim]: what a page holds of the first
/// keys lies in two pieces.
struct KvPages {
    std::byte* handle = nullptr;
    DType dtype = DType::f32;
    std::int64_t pages = 0;
    std::int64_t kv_heads = 0;
    std::int64_t head_dim = 0;   ///< of a key
    std::int64_t value_dim = 0;  ///< of a value

    [[nodiscard]] std::int64_t page_elements() const {
        return kv_heads * (head_dim + value_dim) * kKeyBlock;
    }
    [[nodiscard]] std::int64_t bytes() const { return pages * page_elements() * size_of(dtype); }
};

/// Writes row t of k and v at slots[t] = page * kKeyBlock + position % kKeyBlock. No two rows share
/// a slot.
struct KvWriteArgs {
    ConstMatrix k;                        ///< [T, kv_heads * head_dim], rotated
    ConstMatrix v;                        ///< [T, kv_heads * value_dim]
    std::span<const std::int64_t> slots;  ///< [T], host
    KvPages pages;
};

/// Copies whole page `from[i]` onto page `to[i]`: the page in which a fork's prompt ends. No page
/// is in `to` twice, or in both lists.
struct KvCopyArgs {
    std::span<const std::int32_t> from;  ///< host
    std::span<const std::int32_t> to;    ///< host, as many
    KvPages pages;
};

/// Rows [row_begin, row_begin + rows) of one sequence, at consecutive positions from `position` on.
/// Its pages are page_table[page_begin ...], one for each kKeyBlock positions from 0 up to the last
/// row's. Samples of a prompt stand one behind another and say how much of it they share: a device
/// then reads that part once for all of them. It changes no bit.
struct PagedRun {
    std::int64_t row_begin = 0;
    std::int64_t rows = 0;
    std::int64_t position = 0;
    std::int64_t page_begin = 0;
    /// Positions [0, shared) hold the same keys and values as those of the run before, in the same
    /// pages or in copies; at most the `position` of either. 0: nothing is known of that.
    std::int64_t shared = 0;
};

/// Attention of rows whose keys and values (their own included) are in the cache already.
struct PagedAttentionArgs {
    ConstMatrix q;  ///< [T, heads * head_dim], rotated
    std::int64_t heads = 0;
    KvPages pages;
    std::span<const PagedRun> runs;            ///< host; cover the rows, each once
    std::span<const std::int32_t> page_table;  ///< host
    float scale = 1.0F;                        ///< times q.k
    Matrix out;                                ///< [T, heads * value_dim]; may not alias q
};

/// A segment of a micro-batch: rows [row_begin, row_begin + rows) at consecutive positions from
/// `position` on. It attends to itself and to the segments above it (parent, its parent, …), whose
/// positions come before its own without a gap. Segments stand in post-order: a sample before its
/// prompt.
struct AttentionSegment {
    std::int64_t row_begin = 0;
    std::int64_t rows = 0;
    std::int64_t position = 0;
    std::int32_t parent =
        -1;  ///< index of the parent in the list, greater than its own; -1: none, position 0
};

/// Attention over segments: bits equal to PagedAttentionArgs's for the same sequence.
struct SegmentAttentionArgs {
    ConstMatrix q;  ///< [T, heads * head_dim]
    ConstMatrix k;  ///< [T, kv_heads * head_dim]
    ConstMatrix v;  ///< [T, kv_heads * value_dim]
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;
    std::span<const AttentionSegment> segments;  ///< host; cover the rows, each once, in row order
    float scale = 1.0F;
    Matrix out;                 ///< [T, heads * value_dim]; may not overlap q, k or v
    DeviceSpan<float> maximum;  ///< [T * heads] final maximum M of the scaled scores; empty if no
                                ///< backward follows
    DeviceSpan<float> denominator;  ///< [T * heads] final sum of exp(score - M)
};

/// Gradients; shapes as forward, each gradient as what it is of. No result overlaps an operand or
/// another result. p = exp(s - M) / L; D = sum_d dout out (16 lanes); ds = p (dout.v - D).
/// dq: one accumulator, keys ascending, then times scale. dk (ds q, then times scale) and dv (p
/// dout), per query head: each segment that attends gives a sum from zero over its rows ascending;
/// segments are added in list order, a key's own segment last; then the query heads of a KV head by
/// `head_order` restricted to them (leaf left to right, tree above).
struct SegmentAttentionBackwardArgs {
    ConstMatrix q;
    ConstMatrix k;
    ConstMatrix v;
    ConstMatrix out;
    ConstMatrix dout;
    DeviceSpan<const float> maximum;
    DeviceSpan<const float> denominator;
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;
    Contraction head_order;  ///< over the query heads
    std::span<const AttentionSegment> segments;
    float scale = 1.0F;
    Matrix dq;
    Matrix dk;  ///< with dv of the type of q, or f32: sums that are not yet finished
    Matrix dv;
};

class AttentionOps {
  public:
    virtual ~AttentionOps() = default;
    virtual void kv_write(const KvWriteArgs& args, Stream& stream) = 0;
    virtual void kv_copy(const KvCopyArgs& args, Stream& stream) = 0;
    virtual void paged_attention(const PagedAttentionArgs& args, Stream& stream) = 0;
    virtual void segment_attention(const SegmentAttentionArgs& args, Stream& stream) = 0;
    virtual void segment_attention_backward(const SegmentAttentionBackwardArgs& args,
                                            Stream& stream) = 0;
};

}  // namespace rankwise::kernels
