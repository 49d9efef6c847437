// What forward and backward attention of segments share: checks, and keys and values packed in
// blocks.
#pragma once

#include "kernels/cpu/attention_call.hpp"

namespace rankwise::kernels::cpu {

/// Checks q, k, v and out of a call.
/// @throws InternalError if one does not fit the heads.
template <class Args>
[[nodiscard]] HeadShape check_segment_heads(const char* op, const Args& args) {
    const HeadShape shape =
        check_heads(op, args.q, args.heads, args.kv_heads, head_size(args.q, args.heads),
                    head_size(args.out, args.heads));
    const auto shaped = [&](const char* what, const ConstMatrix& matrix, std::int64_t cols) {
        check_operand(op, what, matrix, args.q.dtype, args.q.rows, cols);
    };
    shaped("q", args.q, args.heads * shape.head_dim);
    shaped("k", args.k, args.kv_heads * shape.head_dim);
    shaped("v", args.v, args.kv_heads * shape.value_dim);
    shaped("out", args.out, args.heads * shape.value_dim);
    return shape;
}

/// The keys and values of a call, and how they are packed.
template <class Element>
struct SegmentKeys {
    const AttentionPlan& plan;
    const HeadShape& shape;
    const Element* k = nullptr;
    const Element* v = nullptr;
    std::int64_t k_stride = 0;
    std::int64_t v_stride = 0;
    void (*pack)(const AttentionBlock<Element>& block) = nullptr;
    std::int64_t size = 0;  ///< floats of one head's part of a block

    /// To [blocks of the bundle][size].
    void pack_bundle(const AttentionPlan::Bundle& bundle, std::int64_t kv_head, float* to) const {
        for (std::int64_t i = 0; i < bundle.blocks.size(); ++i)
            pack_block(bundle.blocks.begin + i, kv_head, to + i * size);
    }

    /// All blocks of all heads: [blocks][kv_heads][size].
    [[nodiscard]] std::int64_t stride() const { return shape.kv_heads * size; }
    [[nodiscard]] std::int64_t floats() const { return plan.blocks() * stride(); }
    void pack_all(ThreadTeam& team, float* to) const {
        run_for_heads(team, plan.blocks(), shape.kv_heads,
                      [&](std::int64_t block, std::int64_t kv_head) {
                          pack_block(block, kv_head, to + block * stride() + kv_head * size);
                      });
    }
    /// Where those of a bundle and a head begin there.
    [[nodiscard]] const float* in_all(const float* packed, const AttentionPlan::Bundle& bundle,
                                      std::int64_t kv_head) const {
        return packed + bundle.blocks.begin * stride() + kv_head * size;
    }

  private:
    void pack_block(std::int64_t block, std::int64_t kv_head, float* to) const {
        pack({.k = k + kv_head * shape.head_dim,
              .v = v + kv_head * shape.value_dim,
              .k_stride = k_stride,
              .v_stride = v_stride,
              .rows = plan.block_rows.data() + block * kKeyBlock,
              .keys = plan.block_keys[static_cast<std::size_t>(block)],
              .head_dim = shape.head_dim,
              .value_dim = shape.value_dim,
              .to = to});
    }
};

}  // namespace rankwise::kernels::cpu
