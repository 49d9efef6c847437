// What an instruction set provides for the rope family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// Of activations of a type, float or bf16 (std::uint16_t).
template <class Element>
struct RopeKernels {
    /// Rotates the heads of one row; cosine and sine: [head_dim / 2]. What lies `next` elements
    /// behind them is brought near.
    void (*rotate)(Element* x, std::int64_t heads, std::int64_t head_dim, const float* cosine,
                   const float* sine, bool inverse, std::int64_t next);
    /// The same of pairs that stand side by side; of float alone.
    void (*rotate_adjacent)(float* x, std::int64_t heads, std::int64_t head_dim,
                            const float* cosine, const float* sine, bool inverse);
};

namespace avx2 {
template <class Element>
const RopeKernels<Element>& rope_kernels();
}
namespace avx512 {
template <class Element>
const RopeKernels<Element>& rope_kernels();
}

}  // namespace rankwise::kernels::cpu
