// What an instruction set provides for the optimizer family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// The numbers of one step, the same for all parameters.
struct AdamwStep {
    float lr;
    float rest1;  ///< 1 - beta1
    float beta2;
    float rest2;  ///< 1 - beta2
    float eps;
    float weight_decay;
    float correction1;
    float correction2;
    float grad_scale;
};

struct OptimizerKernels {
    void (*adamw)(const AdamwStep& step, float* parameter, const float* grad, float* m, float* v,
                  std::int64_t count);
    /// The sum of squares of `count` numbers in double: lane i mod 16, fixed tree.
    double (*squared_sum)(const float* x, std::int64_t count);
};

namespace avx2 {
const OptimizerKernels& optimizer_kernels();
}
namespace avx512 {
const OptimizerKernels& optimizer_kernels();
}

}  // namespace rankwise::kernels::cpu
