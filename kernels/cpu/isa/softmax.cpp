#include "kernels/cpu/softmax_kernels.hpp"

#include "kernels/cpu/isa/maths.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

const float kMinusInfinity = -__builtin_inff();

template <class Element>
void leaf_statistics(const Element* logits, std::int64_t count, float inverse_temperature,
                     float* statistics) {
    const F16 scale = set(inverse_temperature);
    const F16 lowest = set(kMinusInfinity);
    F16 largest = lowest;
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) largest = max(load(logits + i) * scale, largest);
    if (i < count) {
        const F16 x = load_first(logits + i, count - i) * scale;
        largest = max(keep_first_or(x, count - i, kMinusInfinity), largest);
    }
    const float m = max_lane(largest);
    // A leaf without any finite logit: from 0, so that -infinity gives 0 and a NaN is not lost.
    const F16 from = set(m == kMinusInfinity ? 0.0F : m);
    F16 s = zero();
    F16 t = zero();
    const auto take = [&](F16 x) RANKWISE_INLINE {
        const F16 difference = x - from;
        const F16 e = exp(difference);
        s = s + e;
        // 0 * -infinity is meant to be 0.
        t = fma(e, select(equal(difference, lowest), zero(), difference), t);
    };
    i = 0;
    for (; i + kLanes <= count; i += kLanes) take(load(logits + i) * scale);
    if (i < count) {
        const F16 x = load_first(logits + i, count - i) * scale;
        take(keep_first_or(x, count - i, kMinusInfinity));
    }
    statistics[0] = m;
    statistics[1] = sum(s);
    statistics[2] = sum(t);
}

float rescale_leaves(const float* statistics, std::int64_t leaves, float* s, float* t) {
    float m_array[kLanes];
    for (std::int64_t leaf = 0; leaf < kLanes; ++leaf) {
        const bool there = leaf < leaves && statistics[3 * leaf + 1] != 0.0F;
        m_array[leaf] = there ? statistics[3 * leaf] : kMinusInfinity;
        s[leaf] = there ? statistics[3 * leaf + 1] : 0.0F;
        t[leaf] = there ? statistics[3 * leaf + 2] : 0.0F;
    }
    const F16 m = load(m_array);
    const float maximum = max_lane(m);
    const F16 difference = m - set(maximum);
    const F16 c = exp(difference);
    const F16 s_lanes = load(s);
    store(c * s_lanes, s);
    store(c * fma(difference, s_lanes, load(t)), t);
    return maximum;
}

template <class Element>
void gradient(Element* logits, std::int64_t count, float inverse_temperature, float maximum,
              float sum, float factor, std::int64_t target) {
    const F16 scale = set(inverse_temperature);
    const F16 from = set(maximum);
    const F16 total = set(sum);
    const F16 times = set(factor);
    const auto of = [&](F16 logit, F16 one) RANKWISE_INLINE {
        return times * (one - exp(logit * scale - from) / total);
    };
    const bool here = target >= 0 && target < count;
    const F16 chosen = here ? load_first(logits + target, 1) : zero();
    each_sixteen(count, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
        lanes.store(of(lanes.load(logits + i), zero()), logits + i);
    });
    if (here) store_first(of(chosen, set(1.0F)), logits + target, 1);
}

}  // namespace

template <class Element>
const SoftmaxKernels<Element>& softmax_kernels() {
    static constexpr SoftmaxKernels<Element> kernels{leaf_statistics<Element>, rescale_leaves,
                                                     gradient<Element>};
    return kernels;
}
template const SoftmaxKernels<float>& softmax_kernels();
template const SoftmaxKernels<std::uint16_t>& softmax_kernels();

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
