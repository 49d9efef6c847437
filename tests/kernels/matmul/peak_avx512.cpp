#include <immintrin.h>

#include "tests/kernels/matmul/peak.hpp"

namespace rankwise::test {

std::int64_t spin_avx512(std::int64_t count) {
    constexpr int kChains = 12;
    __m512 c[kChains];
    for (__m512& v : c) v = _mm512_set1_ps(1.0F);
    const __m512 a = _mm512_set1_ps(0.5F);
    for (std::int64_t i = 0; i < count; ++i) {
#pragma GCC unroll 12
        for (__m512& v : c) v = _mm512_fmadd_ps(a, v, a);
        // Keeps every chain alive and in a register.
        asm volatile(""
                     : "+v"(c[0]), "+v"(c[1]), "+v"(c[2]), "+v"(c[3]), "+v"(c[4]), "+v"(c[5]),
                       "+v"(c[6]), "+v"(c[7]), "+v"(c[8]), "+v"(c[9]), "+v"(c[10]), "+v"(c[11]));
    }
    return count * kChains * 16;
}

}  // namespace rankwise::test
