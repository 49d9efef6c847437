// What an instruction set provides for the softmax family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// Of logits of a type, float or bf16 (std::uint16_t).
template <class Element>
struct SoftmaxKernels {
    /// m, s and t of one leaf: `count` logits. All of them -infinity: m = -infinity, s = t = 0.
    void (*leaf_statistics)(const Element* logits, std::int64_t count, float inverse_temperature,
                            float* statistics);
    /// Of `leaves` <= 16 leaves [leaves, 3]: the largest m of those with s != 0 (returned;
    /// -infinity if there is none), and each leaf's s and t relative to it, [16] each; those of
    /// leaves with s == 0 mean nothing.
    float (*rescale_leaves)(const float* statistics, std::int64_t leaves, float* s, float* t);
    /// logits[i] = factor * ([i == target] - exp(logits[i] * inverse_temperature - maximum) / sum),
    /// for i in [0, count).
    void (*gradient)(Element* logits, std::int64_t count, float inverse_temperature, float maximum,
                     float sum, float factor, std::int64_t target);
};

namespace avx2 {
template <class Element>
const SoftmaxKernels<Element>& softmax_kernels();
}
namespace avx512 {
template <class Element>
const SoftmaxKernels<Element>& softmax_kernels();
}

}  // namespace rankwise::kernels::cpu
