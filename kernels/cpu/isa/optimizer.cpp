#include "kernels/cpu/optimizer_kernels.hpp"

#include "kernels/cpu/isa/lanes.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

void adamw(const AdamwStep& step, float* parameter, const float* grad, float* m, float* v,
           std::int64_t count) {
    const F16 grad_scale = set(step.grad_scale);
    const F16 beta2 = set(step.beta2);
    const F16 rest1 = set(step.rest1);
    const F16 rest2 = set(step.rest2);
    const F16 correction1 = set(step.correction1);
    const F16 correction2 = set(step.correction2);
    const F16 eps = set(step.eps);
    const F16 lr = set(step.lr);
    const F16 decay = set(step.lr * step.weight_decay);
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        const F16 g = lanes.load(grad + i) * grad_scale;
        const F16 m_old = lanes.load(m + i);
        const F16 m_new = fma(rest1, g - m_old, m_old);
        const F16 v_new = fma(rest2, g * g, beta2 * lanes.load(v + i));
        const F16 p_old = lanes.load(parameter + i);
        const F16 decayed = fnma(decay, p_old, p_old);
        const F16 direction = m_new / correction1 / (sqrt(v_new / correction2) + eps);
        lanes.store(m_new, m + i);
        lanes.store(v_new, v + i);
        lanes.store(fnma(lr, direction, decayed), parameter + i);
    });
}

double squared_sum(const float* x, std::int64_t count) {
    D16 total = zero_double();
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        const D16 value = widen(lanes.load(x + i));
        total = fma(value, value, total);
    });
    return sum(total);
}

}  // namespace

const OptimizerKernels& optimizer_kernels() {
    static constexpr OptimizerKernels kernels{adamw, squared_sum};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
