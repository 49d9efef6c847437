#include <immintrin.h>

#include "tests/kernels/matmul/peak.hpp"

namespace rankwise::test {

std::int64_t spin_avx512(std::int64_t count) {
    constexpr int kChains = 12;
    __m512 c[kChains];

#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) {
        c[chain] = _mm512_set1_ps(static_cast<float>(chain));
        asm volatile("" : "+v"(c[chain]));  // so that no two chains are known to be one
    }
    const __m512 a = _mm512_set1_ps(0.5F);
    for (std::int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 12
        for (int chain = 0; chain < kChains; ++chain) {
            c[chain] = _mm512_fmadd_ps(a, c[chain], a);
        }
    }
#pragma GCC unroll 12
    for (int chain = 0; chain < kChains; ++chain) asm volatile("" : : "v"(c[chain]));
    return count * kChains * 16;
}

}  // namespace rankwise::test
