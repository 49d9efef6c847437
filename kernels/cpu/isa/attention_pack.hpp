// Lays keys and values of a block out for the kernels.
#pragma once

#include "kernels/cpu/isa/attention_row.hpp"
#include "kernels/cpu/isa/transpose.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {

namespace pack_detail {

HWY_INLINE __m256 load_eight(const float* from) {
    return _mm256_loadu_ps(from);
}
HWY_INLINE __m256 load_eight(const std::uint16_t* from) {
    const __m128i elements = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(elements), 16));
}
HWY_INLINE float widened(float x) {
    return x;
}
HWY_INLINE float widened(std::uint16_t x) {
    const std::uint32_t word = std::uint32_t{x} << 16U;
    return __builtin_bit_cast(float, word);
}

/// to[c * to_stride + r] = from[rows[r] * stride + c] for an 8 x 8 patch.
template <class Element>
HWY_INLINE void pack_patch(const Element* from, std::int64_t stride, const std::int64_t* rows,
                           float* to, std::int64_t to_stride) {
    __m256 in[8];
    __m256 columns[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) in[r] = load_eight(from + rows[r] * stride);
    transpose_8x8(in, columns);
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) _mm256_storeu_ps(to + c * to_stride, columns[c]);
}

/// to [64 / width][size][width]: column j < count is row rows[j]; width and count are multiples
/// of 8. The next head's, which is packed next, is brought near.
template <class Element>
HWY_INLINE void pack_columns(const Element* from, std::int64_t stride, const std::int64_t* rows,
                             std::int64_t count, std::int64_t size, std::int64_t width, float* to) {
    for (std::int64_t j = 0; j < count; j += 8) {
        float* const panel = to + j / width * width * size + j % width;
        std::int64_t d = 0;
        for (; d + 8 <= size; d += 8) {
            pack_patch(from + d, stride, rows + j, panel + d * width, width);
            if (d % 16 != 0) continue;
            for (std::int64_t i = 0; i < 8; ++i) fetch(from + rows[j + i] * stride + size + d);
        }
        for (; d < size; ++d) {
            for (std::int64_t i = 0; i < 8; ++i) {
                panel[d * width + i] = widened(from[rows[j + i] * stride + d]);
            }
        }
    }
}

/// to [64][size]: row j < count is row rows[j].
template <class Element>
HWY_INLINE void pack_rows(const Element* from, std::int64_t stride, const std::int64_t* rows,
                          std::int64_t count, std::int64_t size, float* to) {
    for (std::int64_t j = 0; j < count; ++j) {
        copy(from + rows[j] * stride, size, to + j * size);
    }
}

}  // namespace pack_detail

template <class Element>
void pack_forward(const AttentionBlock<Element>& block) {
    const std::int64_t count = round_up_16(block.keys);
    pack_detail::pack_columns(block.k, block.k_stride, block.rows, count, block.head_dim, kLanes,
                              block.to);
    pack_detail::pack_rows(block.v, block.v_stride, block.rows, count, block.value_dim,
                           block.to + block.head_dim * kBlock);
}

template <class Element>
void pack_backward(const AttentionBlock<Element>& block) {
    const std::int64_t keys = block.head_dim * kBlock;
    const std::int64_t values = block.value_dim * kBlock;
    const std::int64_t count = round_up_16(block.keys);
    pack_detail::pack_columns(block.k, block.k_stride, block.rows, count, block.head_dim, kBlock,
                              block.to);
    pack_detail::pack_columns(block.v, block.v_stride, block.rows, count, block.value_dim, kBlock,
                              block.to + keys);
    pack_detail::pack_rows(block.k, block.k_stride, block.rows, count, block.head_dim,
                           block.to + keys + values);
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
