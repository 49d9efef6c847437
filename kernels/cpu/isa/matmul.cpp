#include "kernels/cpu/matmul_kernels.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

constexpr int kBlock = 64;  // columns whose sums stay in registers

void bias_gradient(const float* dy, std::int64_t rows, std::int64_t stride, float* db,
                   std::int64_t columns, bool add) {
    for (std::int64_t first = 0; first < columns; first += kBlock) {
        const std::int64_t count = columns - first < kBlock ? columns - first : kBlock;
        float sum[kBlock] = {};
        if (count == kBlock) {
            for (std::int64_t t = 0; t < rows; ++t) {
                for (int n = 0; n < kBlock; ++n) sum[n] += dy[t * stride + first + n];
            }
        } else {
            for (std::int64_t t = 0; t < rows; ++t) {
                for (std::int64_t n = 0; n < count; ++n) sum[n] += dy[t * stride + first + n];
            }
        }
        for (std::int64_t n = 0; n < count; ++n) {
            db[first + n] = add ? db[first + n] + sum[n] : sum[n];
        }
    }
}

}  // namespace

const MatmulKernels& matmul_kernels() {
    static constexpr MatmulKernels kernels{bias_gradient};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
