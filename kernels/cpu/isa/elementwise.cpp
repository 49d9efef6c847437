#include "kernels/cpu/elementwise_kernels.hpp"

#include "kernels/cpu/isa/maths.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

void swiglu(const float* gate, const float* up, float* out, std::int64_t count) {
    const F16 one = set(1.0F);
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        const F16 a = lanes.load(gate + i);
        lanes.store(a / (one + exp(-a)) * lanes.load(up + i), out + i);
    });
}

void swiglu_backward(const float* gate, const float* up, const float* dout, float* dgate,
                     float* dup, std::int64_t count) {
    const F16 one = set(1.0F);
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        const F16 a = lanes.load(gate + i);
        const F16 b = lanes.load(up + i);
        const F16 d = lanes.load(dout + i);
        const F16 s = one / (one + exp(-a));
        lanes.store(d * b * (s * fma(a, one - s, one)), dgate + i);
        lanes.store(d * (a * s), dup + i);
    });
}

void add(const float* from, float* to, std::int64_t count) {
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        lanes.store(lanes.load(to + i) + lanes.load(from + i), to + i);
    });
}

void sum_rows(const float* from, std::int64_t stride, const std::int64_t* rows, std::int64_t count,
              std::int64_t cols, bool from_zero, float* to) {
    each_sixteen(cols, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        F16 total = zero();
        for (std::int64_t r = 0; r < count; ++r) {
            const F16 value = lanes.load(from + rows[r] * stride + i);
            total = r == 0 && !from_zero ? value : total + value;
        }
        lanes.store(total, to + i);
    });
}

}  // namespace

const ElementwiseKernels& elementwise_kernels() {
    static constexpr ElementwiseKernels kernels{swiglu, swiglu_backward, add, sum_rows};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
