// Gradients of one query head of one segment: the sequence of kernels/cpu/README.md, "Attention,
// backward". Rows are taken in blocks that lie as the key blocks do, so that only the last key
// block of a row block has a causal edge.
#include "kernels/cpu/isa/attention_row.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

constexpr std::int64_t kEdge =
    16;  // rows and keys are cut into pieces of this size at the causal edge

struct Buffers {
    float* q;                   // [64][padded]
    float* dout;                // [64][value_padded]
    float* dq;                  // [64][padded]
    float* p;                   // [64][64]: scores, then probabilities
    float* ds;                  // [64][64]: dout.v, then gradients of the scores
    float* dot;                 // [64]: D
    std::int64_t padded;        // of keys
    std::int64_t value_padded;  // of values
};

/// Blocks of rows that meet a block of keys one after the other, where keys, values and their
/// gradients come from memory.
constexpr std::int64_t kTogether = 4;
constexpr std::int64_t kManyKeys = 1024;

/// Floats of the buffers of one block of rows: the first three and the last.
std::int64_t own_floats(std::int64_t padded, std::int64_t value_padded) {
    return kBlock * (2 * padded + value_padded + 1);
}

/// Those of the index-th of kTogether blocks; p and ds are the same of all.
template <class Element>
Buffers carve(const AttentionHeadGradient<Element>& a, std::int64_t index) {
    Buffers b{};
    b.padded = round_up_16(a.head_dim);
    b.value_padded = round_up_16(a.value_dim);
    b.p = a.scratch;
    b.ds = b.p + kBlock * kBlock;
    float* next = b.ds + kBlock * kBlock + index * own_floats(b.padded, b.value_padded);
    const auto take = [&next](std::int64_t floats) {
        float* taken = next;
        next += floats;
        return taken;
    };
    b.q = take(kBlock * b.padded);
    b.dout = take(kBlock * b.value_padded);
    b.dq = take(kBlock * b.padded);
    b.dot = take(kBlock);
    return b;
}

/// sum over d of x y: 16 lanes by d mod 16, d ascending, fma; the lane tree.
template <class Element>
float lane_dot(const Element* x, const Element* y, std::int64_t count) {
    F16 sums = zero();
    each_sixteen(count, [&](std::int64_t d, auto lanes)  // as if 0 followed the last
                 RANKWISE_INLINE { sums = fma(lanes.load(x + d), lanes.load(y + d), sums); });
    return sum(sums);
}

/// p and ds of one row from its scores and dout.v; 0 from key `keys` on.
template <class Element>
void row_gradient(const AttentionHeadGradient<Element>& a, const Buffers& b, std::int64_t row,
                  std::int64_t r, std::int64_t keys) {
    float* p = b.p + r * kBlock;
    float* ds = b.ds + r * kBlock;
    const F16 m = set(a.maximum[row * a.statistics_stride]);
    const F16 l = set(a.denominator[row * a.statistics_stride]);
    const F16 dot = set(b.dot[r]);
    const F16 scale = set(a.scale);
    std::int64_t j = 0;
    for (; j < keys; j += kLanes) {
        const F16 raw = exp(load(p + j) * scale - m) / l;
        store(keep_first(raw, keys - j), p + j);
        store(keep_first(raw * (load(ds + j) - dot), keys - j), ds + j);
    }
    for (; j < kBlock; j += kLanes) {
        store(zero(), p + j);
        store(zero(), ds + j);
    }
}

/// Rows [row, row + count) (64 or fewer, inside one key block at offset `offset`) against the block
/// at `key`.
struct Step {
    std::int64_t row;
    std::int64_t count;
    std::int64_t offset;
    bool edge = false;        // the block that holds the rows' own keys
    bool first_keys = false;  // no block of rows has met these keys yet
};

std::int64_t keys_of(const Step& step, std::int64_t r) {
    return step.edge ? step.offset + r + 1 : kBlock;
}

/// Calls body(first row, rows): all at once, or in pieces at the causal edge, whose last rows' keys
/// fill lanes.
template <class Body>
HWY_INLINE void in_pieces(const Step& step, Body body) {
    if (!step.edge) return body(0, step.count);
    for (std::int64_t r = 0, count = 0; r < step.count; r += count) {
        const std::int64_t whole = kEdge - (step.offset + r) % kEdge;
        count = step.count - r < whole ? step.count - r : whole;
        body(r, count);
    }
}

template <bool kResume, class Element>
void key_gradients(const AttentionHeadGradient<Element>& a, const Buffers& b, const Step& step,
                   std::int64_t key) {
    const std::int64_t keys = keys_of(step, step.count - 1);
    const std::int64_t piece = step.edge ? kEdge : kBlock;
    const std::int64_t own = a.position - key;  // the first of the rows' own keys
    for (std::int64_t j = 0, count = 0; j < keys; j += count) {
        count = keys - j < piece ? keys - j : piece;
        if (j < own && own < j + count) count = own - j;
        const bool are_own = j >= own;
        // Rows before these keys have p = ds = 0 for them. They come first, so they would add ±0 to
        // sums that are +0.
        const std::int64_t skipped = step.edge && j > step.offset ? j - step.offset : 0;
        Product product{.a = b.p + skipped * kBlock + j,
                        .a_row = 1,
                        .a_step = kBlock,
                        .b = b.dout + skipped * b.value_padded,
                        .b_step = b.value_padded,
                        .c = are_own ? a.own_dv + (j - own) * b.value_padded
                                     : a.dv + (key + j) * b.value_padded,
                        .c_row = b.value_padded,
                        .rows = count,
                        .columns = a.value_dim,
                        .steps = step.count - skipped};
        multiply<FloatRows, kResume>(product);
        product.a = b.ds + skipped * kBlock + j;
        product.b = b.q + skipped * b.padded;
        product.b_step = b.padded;
        product.c = are_own ? a.own_dk + (j - own) * b.padded : a.dk + (key + j) * b.padded;
        product.c_row = b.padded;
        product.columns = a.head_dim;
        multiply<FloatRows, kResume>(product);
    }
}

template <class Element>
void against_block(const AttentionHeadGradient<Element>& a, const Buffers& b, const Step& step,
                   std::int64_t key) {
    using Dot = typename DotRows<Element>::Packed;
    const float* block = a.blocks + a.table[key / kBlock] * a.block_stride;
    in_pieces(step, [&](std::int64_t r, std::int64_t rows) {
        Product product{.a = b.q + r * b.padded,
                        .a_row = b.padded,
                        .a_step = 1,
                        .b = block,
                        .b_step = kBlock,
                        .c = b.p + r * kBlock,
                        .c_row = kBlock,
                        .rows = rows,
                        .columns = round_up_16(keys_of(step, r + rows - 1)),
                        .steps = a.head_dim};
        multiply<Dot, false>(product);
        product.a = b.dout + r * b.value_padded;
        product.a_row = b.value_padded;
        product.b = block + a.head_dim * kBlock;
        product.c = b.ds + r * kBlock;
        product.steps = a.value_dim;
        multiply<Dot, false>(product);
    });
    for (std::int64_t r = 0; r < step.count; ++r) {
        const std::int64_t row = step.row + r;
        if (step.edge) {  // once for every row; behind a segment lies the next
            fetch_later(a.q + (row + kBlock) * a.q_stride, a.head_dim);
            fetch_later(a.dout + (row + kBlock) * a.dout_stride, a.value_dim);
            fetch_later(a.out + (row + kBlock) * a.out_stride, a.value_dim);
        }
        row_gradient(a, b, row, r, keys_of(step, r));
    }
    Product product{.a = b.ds,
                    .a_row = kBlock,
                    .a_step = 1,
                    .b = block + (a.head_dim + a.value_dim) * kBlock,
                    .b_step = a.head_dim,
                    .c = b.dq,
                    .c_row = b.padded,
                    .rows = step.count,
                    .columns = a.head_dim,
                    .steps = kBlock};
    if (!step.edge) {
        multiply<FloatRows, true>(product);
    } else {
        for (std::int64_t r = 0; r < step.count; r += kTile) {
            product.a = b.ds + r * kBlock;
            product.c = b.dq + r * b.padded;
            product.rows = step.count - r < kTile ? step.count - r : kTile;
            std::int64_t keys[kTile];
            for (std::int64_t i = 0; i < product.rows; ++i) keys[i] = keys_of(step, r + i);
            multiply_stairs<FloatRows>(product, keys);
        }
    }
    if (step.first_keys) {
        key_gradients<false>(a, b, step, key);
    } else {
        key_gradients<true>(a, b, step, key);
    }
}

/// A block of rows on its way through the keys.
struct RowBlock {
    Step step;
    std::int64_t own_key = 0;  ///< the last block of keys
    Buffers buffers;
};

/// Takes in its rows.
template <class Element>
void begin(const AttentionHeadGradient<Element>& a, const RowBlock& block) {
    const Buffers& b = block.buffers;
    for (std::int64_t r = 0; r < block.step.count; ++r) {
        const std::int64_t row = block.step.row + r;
        const Element* dout = a.dout + row * a.dout_stride;
        copy(a.q + row * a.q_stride, a.head_dim, b.q + r * b.padded);
        copy(dout, a.value_dim, b.dout + r * b.value_padded);
        b.dot[r] = lane_dot(dout, a.out + row * a.out_stride, a.value_dim);
        for (std::int64_t d = 0; d < b.padded; d += kLanes) {
            store(zero(), b.dq + r * b.padded + d);
        }
    }
}

/// Gives the gradients of its queries.
template <class Element>
void finish(const AttentionHeadGradient<Element>& a, const RowBlock& block) {
    const Buffers& b = block.buffers;
    const F16 scale = set(a.scale);
    for (std::int64_t r = 0; r < block.step.count; ++r) {
        const float* total = b.dq + r * b.padded;
        Element* dq = a.dq + (block.step.row + r) * a.dq_stride;
        each_sixteen(a.head_dim, [&](std::int64_t d, auto lanes) RANKWISE_INLINE {
            lanes.store(load(total + d) * scale, dq + d);
        });
    }
}

}  // namespace

std::int64_t attention_gradient_scratch(std::int64_t head_dim, std::int64_t value_dim) {
    return 2 * kBlock * kBlock +
           kTogether * own_floats(round_up_16(head_dim), round_up_16(value_dim));
}

template <class Element>
void attention_gradient(const AttentionHeadGradient<Element>& a) {
    const std::int64_t end = a.position + a.rows;
    const std::int64_t together = end > kManyKeys ? kTogether : 1;
    for (std::int64_t position = a.position; position < end;) {
        RowBlock blocks[kTogether];
        std::int64_t count = 0;
        for (; count < together && position < end; ++count) {
            RowBlock& block = blocks[count];
            block.own_key = position / kBlock * kBlock;
            const std::int64_t next = block.own_key + kBlock < end ? block.own_key + kBlock : end;
            block.step = {.row = position - a.position,
                          .count = next - position,
                          .offset = position - block.own_key};
            block.buffers = carve(a, count);
            begin(a, block);
            position = next;
        }
        for (std::int64_t key = 0; key <= blocks[count - 1].own_key; key += kBlock) {
            for (std::int64_t i = 0; i < count; ++i) {
                if (key > blocks[i].own_key) continue;
                Step step = blocks[i].step;
                step.edge = key == blocks[i].own_key;
                step.first_keys = step.edge || step.row == 0;
                against_block(a, blocks[i].buffers, step, key);
            }
        }
        for (std::int64_t i = 0; i < count; ++i) finish(a, blocks[i]);
    }
}

template void attention_gradient(const AttentionHeadGradient<float>& a);
template void attention_gradient(const AttentionHeadGradient<std::uint16_t>& a);

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
