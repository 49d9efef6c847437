// What an instruction set provides for the matmul family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

struct MatmulKernels {
    /// db[n] (+)= sum over t ascending of dy[t * stride + n], from zero, for n in [0, columns).
    void (*bias_gradient)(const float* dy, std::int64_t rows, std::int64_t stride, float* db,
                          std::int64_t columns, bool add);
};

namespace avx2 {
const MatmulKernels& matmul_kernels();
}
namespace avx512 {
const MatmulKernels& matmul_kernels();
}

}  // namespace rankwise::kernels::cpu
