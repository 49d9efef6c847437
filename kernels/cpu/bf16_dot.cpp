// vdpbf16ps, which belongs to no instruction set that the row kernels are compiled for: a function
// of its own, entered only where the machine has it.
#include <immintrin.h>

#include "kernels/cpu/limit_kernels.hpp"

namespace rankwise::kernels::cpu {

__attribute__((target("avx512f,avx512bf16"))) std::int64_t spin_bf16_dot(std::int64_t rounds) {
    constexpr int kChains = 12;
    __m512 chain[kChains];
    const __m512bh pairs = (__m512bh)_mm512_setzero_si512();
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
        chain[i] = _mm512_set1_ps(static_cast<float>(i));
        asm volatile("" : "+v"(chain[i]));  // so that no two chains are known to be one
    }
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) chain[i] = _mm512_dpbf16_ps(chain[i], pairs, pairs);
    }
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) asm volatile("" : : "v"(chain[i]));
    return rounds * kChains * 32;
}

}  // namespace rankwise::kernels::cpu
