// What an instruction set provides for measuring its limits.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

struct LimitKernels {
    /// @return multiply-adds done, of fp32.
    std::int64_t (*spin)(std::int64_t rounds);
    /// Sums of `streams` stretches of `count` floats (a multiple of 16) that begin `distance` apart
    /// and are walked side by side; asks for each line `ahead` floats before it is read (0: leaves
    /// that to the processor).
    float (*read)(const float* from, std::int64_t count, std::int64_t streams,
                  std::int64_t distance, std::int64_t ahead);
};

namespace avx2 {
const LimitKernels& limit_kernels();
}
namespace avx512 {
const LimitKernels& limit_kernels();
}

/// Of vdpbf16ps: multiply-adds done in `rounds` rounds.
std::int64_t spin_bf16_dot(std::int64_t rounds);

}  // namespace rankwise::kernels::cpu
