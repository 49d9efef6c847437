// What an instruction set provides for the norm family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// Of activations of a type, float or bf16 (std::uint16_t).
template <class Element>
struct NormKernels {
    /// One row of `groups` groups of `size` columns; y may be x; inv_rms: [groups], or null.
    void (*forward)(const Element* x, const float* weight, std::int64_t groups, std::int64_t size,
                    float eps, Element* y, float* inv_rms);
    /// One row; dx may be dy; added to dx if `add`.
    void (*backward)(const Element* dy, const Element* x, const float* weight, const float* inv_rms,
                     std::int64_t groups, std::int64_t size, Element* dx, bool add);
    /// sums[g * size + i] = sum over the block's rows, ascending from zero, of dy x r.
    void (*weight_gradient)(const Element* dy, std::int64_t dy_stride, const Element* x,
                            std::int64_t x_stride, const float* inv_rms, std::int64_t rows,
                            std::int64_t groups, std::int64_t size, float* sums);
};

namespace avx2 {
template <class Element>
const NormKernels<Element>& norm_kernels();
}
namespace avx512 {
template <class Element>
const NormKernels<Element>& norm_kernels();
}

}  // namespace rankwise::kernels::cpu
