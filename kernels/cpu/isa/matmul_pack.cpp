// Packing rows of a weight as the columns of a panel.
#include "kernels/cpu/isa/matmul_family.hpp"
#include "kernels/cpu/isa/matmul_tile.hpp"
#include "kernels/cpu/isa/transpose.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

/// columns[k][i] = from[i * stride + k] for eight rows and eight k.
RANKWISE_INLINE void load_columns(const float* from, std::int64_t stride, __m256 (&columns)[8]) {
    __m256 rows[8];
    RANKWISE_UNROLL for (int i = 0; i < 8; ++i) rows[i] = _mm256_loadu_ps(from + i * stride);
    transpose_8x8(rows, columns);
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
            load_columns(from + k, stride, first);
            load_columns(from + 8 * stride + k, stride, second);
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
