// Patches of eight rows and eight columns turned over: what packing of weights and of keys is made
// of.
#pragma once

#include <immintrin.h>

namespace rankwise::kernels::cpu::RANKWISE_ISA {

/// columns[c][r] = rows[r][c]. Both in registers.
__attribute__((always_inline)) inline void transpose_8x8(const __m256 (&rows)[8],
                                                         __m256 (&columns)[8]) {
    __m256 pair[8];  // pairs of rows, then quads, then eight
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        pair[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pair[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    __m256 quad[8];
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        quad[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
        quad[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xEE);
        quad[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
        quad[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xEE);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
        columns[c] = _mm256_permute2f128_ps(quad[c], quad[c + 4], 0x20);
        columns[c + 4] = _mm256_permute2f128_ps(quad[c], quad[c + 4], 0x31);
    }
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
