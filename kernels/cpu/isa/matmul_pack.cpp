// Packing rows of a weight as the columns of a panel.
#include "kernels/cpu/isa/matmul_family.hpp"
#include "kernels/cpu/isa/matmul_tile.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

/// columns[k][i] = from[i * stride + k] for eight rows and eight k.
RANKWISE_INLINE void transpose_8x8(const float* from, std::int64_t stride, __m256* columns) {
    __m256 r[8];
    RANKWISE_UNROLL for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * stride);
    __m256 pair[8];  // pairs of rows, then quads, then eight
    RANKWISE_UNROLL for (int i = 0; i < 4; ++i) {
        pair[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        pair[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    __m256 quad[8];
    RANKWISE_UNROLL for (int i = 0; i < 2; ++i) {
        quad[4 * i] = _mm256_shuffle_ps(pair[4 * i], pair[4 * i + 2], 0x44);
        quad[4 * i + 1] = _mm256_shuffle_ps(pair[4 * i], pair[4 * i + 2], 0xEE);
        quad[4 * i + 2] = _mm256_shuffle_ps(pair[4 * i + 1], pair[4 * i + 3], 0x44);
        quad[4 * i + 3] = _mm256_shuffle_ps(pair[4 * i + 1], pair[4 * i + 3], 0xEE);
    }
    RANKWISE_UNROLL for (int k = 0; k < 4; ++k) {
        columns[k] = _mm256_permute2f128_ps(quad[k], quad[k + 4], 0x20);
        columns[k + 4] = _mm256_permute2f128_ps(quad[k], quad[k + 4], 0x31);
    }
}

/// A whole term of a panel: one line.
RANKWISE_INLINE void store_term(__m256 first, __m256 second, float* to, bool past_caches) {
    if (past_caches) {
        _mm256_stream_ps(to, first);
        _mm256_stream_ps(to + 8, second);
    } else {
        _mm256_storeu_ps(to, first);
        _mm256_storeu_ps(to + 8, second);
    }
}

}  // namespace

void pack_transposed(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t count,
                     float* to, std::int64_t step, bool past_caches) {
    std::int64_t k = 0;
    if (rows == kPanel) {
        for (; k + 8 <= count; k += 8) {
            __m256 first[8];
            __m256 second[8];
            transpose_8x8(from + k, stride, first);
            transpose_8x8(from + 8 * stride + k, stride, second);
            RANKWISE_UNROLL for (int i = 0; i < 8; ++i) {
                store_term(first[i], second[i], to + (k + i) * step, past_caches);
            }
        }
    }
    for (; k < count; ++k) {
        for (int i = 0; i < kPanel; ++i) to[k * step + i] = i < rows ? from[i * stride + k] : 0.0F;
    }
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
