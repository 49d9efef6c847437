// vdpbf16ps and vcvtneps2bf16 as functions, for comparing them with what NUMERICS N1 says. Only for
// machines with avx512_bf16. Plain pointers: nothing that the linker could share.
#pragma once

#include <cstdint>

namespace rankwise::test {

/// result[i] = sum[i] and the products of the pair i of a and b, i < 16.
void pair_product_of_the_processor(const float* sum, const std::uint16_t* a, const std::uint16_t* b,
                                   float* result);
/// result[i] = values[i] in bf16, i < 16.
void rounded_by_the_processor(const float* values, std::uint16_t* result);

}  // namespace rankwise::test
