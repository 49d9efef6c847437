// What an instruction set provides for the gating family: one row at a time.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

struct GatingKernels {
    /// scores may be the logits.
    void (*sigmoid)(const float* logits, std::int64_t count, float* scores);
    void (*softmax)(const float* logits, std::int64_t count, float* scores);
    /// to = the sum of weights[i] times row rows[i] of `from` (weights null: of the rows), i
    /// ascending; `resume`: from what is there, else from zero.
    void (*combine)(const float* from, std::int64_t stride, const std::int64_t* rows,
                    const float* weights, std::int64_t count, std::int64_t cols, bool resume,
                    float* to);
    /// The sum over columns of dto from; then dfrom = weight * dto. dfrom may be from.
    float (*combine_backward)(const float* dto, const float* from, float weight, std::int64_t cols,
                              float* dfrom);
};

namespace avx2 {
const GatingKernels& gating_kernels();
}
namespace avx512 {
const GatingKernels& gating_kernels();
}

}  // namespace rankwise::kernels::cpu
