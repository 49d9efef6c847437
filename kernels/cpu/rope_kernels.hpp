// What an instruction set provides for the rope family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

struct RopeKernels {
    /// Rotates the heads of one row; cosine and sine: [head_dim / 2].
    void (*rotate)(float* x, std::int64_t heads, std::int64_t head_dim, const float* cosine,
                   const float* sine, bool inverse);
};

namespace avx2 {
const RopeKernels& rope_kernels();
}
namespace avx512 {
const RopeKernels& rope_kernels();
}

}  // namespace rankwise::kernels::cpu
