// What an instruction set provides for the elementwise family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

struct ElementwiseKernels {
    /// out[i] = silu(gate[i]) * up[i].
    void (*swiglu)(const float* gate, const float* up, float* out, std::int64_t count);
    /// dgate and dup may be gate and up.
    void (*swiglu_backward)(const float* gate, const float* up, const float* dout, float* dgate,
                            float* dup, std::int64_t count);
    /// to[i] = to[i] + from[i].
    void (*add)(const float* from, float* to, std::int64_t count);
    /// to = the sum of rows[0], rows[1], … of `from`, in that order: from the first of them, or
    /// from zero.
    void (*sum_rows)(const float* from, std::int64_t stride, const std::int64_t* rows,
                     std::int64_t count, std::int64_t cols, bool from_zero, float* to);
};

namespace avx2 {
const ElementwiseKernels& elementwise_kernels();
}
namespace avx512 {
const ElementwiseKernels& elementwise_kernels();
}

}  // namespace rankwise::kernels::cpu
