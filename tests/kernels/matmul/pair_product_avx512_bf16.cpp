#include <immintrin.h>

#include "tests/kernels/matmul/pair_product.hpp"

namespace rankwise::test {

void pair_product_of_the_processor(const float* sum, const std::uint16_t* a, const std::uint16_t* b,
                                   float* result) {
    const __m512i pairs_a = _mm512_loadu_si512(a);
    const __m512i pairs_b = _mm512_loadu_si512(b);
    _mm512_storeu_ps(result,
                     _mm512_dpbf16_ps(_mm512_loadu_ps(sum), reinterpret_cast<__m512bh>(pairs_a),
                                      reinterpret_cast<__m512bh>(pairs_b)));
}

void rounded_by_the_processor(const float* values, std::uint16_t* result) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(result),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(values))));
}

}  // namespace rankwise::test
