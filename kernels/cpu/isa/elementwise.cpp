#include "kernels/cpu/elementwise_kernels.hpp"

#include "kernels/cpu/isa/maths.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

template <class Element>
void swiglu(const Element* gate, const Element* up, Element* out, std::int64_t count) {
    const F16 one = set(1.0F);
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        const F16 a = lanes.load(gate + i);
        lanes.store(a / (one + exp(-a)) * lanes.load(up + i), out + i);
    });
}

template <class Element>
void swiglu_backward(const Element* gate, const Element* up, const Element* dout, Element* dgate,
                     Element* dup, std::int64_t count, std::int64_t next) {
    const F16 one = set(1.0F);
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        const F16 a = lanes.load(gate + i);
        const F16 b = lanes.load(up + i);
        const F16 d = lanes.load(dout + i);
        fetch(gate + next + i);
        fetch(up + next + i);
        const F16 s = one / (one + exp(-a));
        lanes.store(d * b * (s * fma(a, one - s, one)), dgate + i);
        lanes.store(d * (a * s), dup + i);
    });
}

template <class Element>
void add(const Element* from, Element* to, std::int64_t count) {
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        lanes.store(lanes.load(to + i) + lanes.load(from + i), to + i);
    });
}

template <class Element>
void round(const float* from, Element* to, std::int64_t count) {
    each_sixteen(count, [&](std::int64_t i, auto lanes)
                            RANKWISE_INLINE { lanes.store(lanes.load(from + i), to + i); });
}

template <class Element>
void add_rounded(const float* from, Element* to, std::int64_t count) {
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        Element rounded[kLanes];
        store(lanes.load(from + i), rounded);
        lanes.store(lanes.load(to + i) + load(rounded), to + i);
    });
}

template <class Element, class Result>
void add_rows(const Element* from, std::int64_t stride, const std::int64_t* rows,
              std::int64_t count, std::int64_t cols, bool from_zero, Result* to) {
    each_sixteen(cols, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        F16 total = zero();
        for (std::int64_t r = 0; r < count; ++r) {
            const F16 value = lanes.load(from + rows[r] * stride + i);
            total = r == 0 && !from_zero ? value : total + value;
        }
        lanes.store(total, to + i);
    });
}

template <class Element>
void total_rows(const Element* from, std::int64_t stride, const std::int64_t* rows,
                std::int64_t count, std::int64_t cols, float* to) {
    add_rows(from, stride, rows, count, cols, true, to);
}

}  // namespace

template <class Element>
const ElementwiseKernels<Element>& elementwise_kernels() {
    static constexpr ElementwiseKernels<Element> kernels{
        swiglu<Element>, swiglu_backward<Element>,   add<Element>,       add_rounded<Element>,
        round<Element>,  add_rows<Element, Element>, total_rows<Element>};
    return kernels;
}
template const ElementwiseKernels<float>& elementwise_kernels();
template const ElementwiseKernels<std::uint16_t>& elementwise_kernels();

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
