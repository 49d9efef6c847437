#include "kernels/cpu/gating_kernels.hpp"

#include "kernels/cpu/isa/maths.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

void sigmoid(const float* logits, std::int64_t count, float* scores) {
    const F16 one = set(1.0F);
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        lanes.store(one / (one + exp(-lanes.load(logits + i))), scores + i);
    });
}

void softmax(const float* logits, std::int64_t count, float* scores) {
    const float lowest = -__builtin_inff();
    F16 largest = set(lowest);
    for (std::int64_t i = 0; i < count; i += kLanes) {
        const std::int64_t left = count - i;
        largest = max(keep_first_or(load_first(logits + i, left), left, lowest), largest);
    }
    const F16 from = set(max_lane(largest));
    F16 total = zero();
    for (std::int64_t i = 0; i < count; i += kLanes) {
        const std::int64_t left = count - i;
        // Beyond the last expert e is +0 and a lane is never -0: nothing is added.
        const F16 e = keep_first(exp(load_first(logits + i, left) - from), left);
        total = total + e;
        store_first(e, scores + i, left);
    }
    const F16 divisor = set(sum(total));
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        lanes.store(lanes.load(scores + i) / divisor, scores + i);
    });
}

void combine(const float* from, std::int64_t stride, const std::int64_t* rows, const float* weights,
             std::int64_t count, std::int64_t cols, bool resume, float* to) {
    each_sixteen(cols, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        F16 total = resume ? lanes.load(to + i) : zero();
        for (std::int64_t r = 0; r < count; ++r) {
            const F16 value = lanes.load(from + rows[r] * stride + i);
            total = weights == nullptr ? total + value : fma(set(weights[r]), value, total);
        }
        lanes.store(total, to + i);
    });
}

float combine_backward(const float* dto, const float* from, float weight, std::int64_t cols,
                       float* dfrom) {
    const F16 factor = set(weight);
    F16 total = zero();
    each_sixteen(cols, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        const F16 d = lanes.load(dto + i);
        total = fma(d, lanes.load(from + i), total);
        lanes.store(factor * d, dfrom + i);
    });
    return sum(total);
}

}  // namespace

const GatingKernels& gating_kernels() {
    static constexpr GatingKernels kernels{sigmoid, softmax, combine, combine_backward};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
