// What an instruction set provides for the elementwise family.
#pragma once

#include <cstdint>

namespace rankwise::kernels::cpu {

/// Of activations of a type, float or bf16 (std::uint16_t).
template <class Element>
struct ElementwiseKernels {
    /// out[i] = silu(gate[i]) * up[i].
    void (*swiglu)(const Element* gate, const Element* up, Element* out, std::int64_t count);
    /// dgate and dup may be gate and up. What lies `next` elements behind gate and up is brought
    /// near.
    void (*swiglu_backward)(const Element* gate, const Element* up, const Element* dout,
                            Element* dgate, Element* dup, std::int64_t count, std::int64_t next);
    /// to[i] = to[i] + from[i].
    void (*add)(const Element* from, Element* to, std::int64_t count);
    /// to[i] = to[i] + from[i], which is rounded first.
    void (*add_rounded)(const float* from, Element* to, std::int64_t count);
    /// to[i] = from[i], rounded.
    void (*round)(const float* from, Element* to, std::int64_t count);
    /// to = the sum of rows[0], rows[1], … of `from`, in that order: from the first of them, or
    /// from zero.
    void (*sum_rows)(const Element* from, std::int64_t stride, const std::int64_t* rows,
                     std::int64_t count, std::int64_t cols, bool from_zero, Element* to);
    /// The same, from zero, not rounded.
    void (*total_rows)(const Element* from, std::int64_t stride, const std::int64_t* rows,
                       std::int64_t count, std::int64_t cols, float* to);
};

namespace avx2 {
template <class Element>
const ElementwiseKernels<Element>& elementwise_kernels();
}
namespace avx512 {
template <class Element>
const ElementwiseKernels<Element>& elementwise_kernels();
}

}  // namespace rankwise::kernels::cpu
