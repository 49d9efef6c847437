// The parts of the matmul family of one instruction set, gathered into its table by matmul.cpp.
#pragma once

#include "kernels/cpu/matmul_kernels.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {

void pack_transposed(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t count,
                     float* to, std::int64_t step, bool past_caches);
void weight_gradient(const GradientBlock& block);
void bias_gradient(const float* dy, std::int64_t rows, std::int64_t stride, float* db,
                   std::int64_t columns, bool add);

void bf16_weight_gradient(const Bf16GradientBlock& block);

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
