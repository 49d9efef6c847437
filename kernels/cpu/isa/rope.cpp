#include "kernels/cpu/rope_kernels.hpp"

#include "kernels/cpu/isa/lanes.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

template <class Element>
void rotate(Element* x, std::int64_t heads, std::int64_t head_dim, const float* cosine,
            const float* sine, bool inverse, std::int64_t next) {
    const std::int64_t half = head_dim / 2;
    for (std::int64_t h = 0; h < heads; ++h, x += head_dim) {
        each_sixteen(half, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
            fetch(x + next + i);
            fetch(x + next + half + i);
            const F16 c = lanes.load(cosine + i);
            const F16 s = inverse ? -lanes.load(sine + i) : lanes.load(sine + i);
            const F16 a = lanes.load(x + i);
            const F16 b = lanes.load(x + half + i);
            lanes.store(fms(a, c, b * s), x + i);
            lanes.store(fma(b, c, a * s), x + half + i);
        });
    }
}

void rotate_adjacent(float* x, std::int64_t heads, std::int64_t head_dim, const float* cosine,
                     const float* sine, bool inverse) {
    const std::int64_t half = head_dim / 2;
    for (std::int64_t h = 0; h < heads; ++h, x += head_dim) {
        for (std::int64_t i = 0; i < half; ++i) {
            const float c = cosine[i];
            const float s = inverse ? -sine[i] : sine[i];
            const float a = x[2 * i];
            const float b = x[2 * i + 1];
            x[2 * i] = __builtin_fmaf(a, c, -(b * s));
            x[2 * i + 1] = __builtin_fmaf(b, c, a * s);
        }
    }
}

}  // namespace

template <class Element>
const RopeKernels<Element>& rope_kernels() {
    static constexpr RopeKernels<Element> kernels{rotate<Element>, rotate_adjacent};
    return kernels;
}
template const RopeKernels<float>& rope_kernels();
template const RopeKernels<std::uint16_t>& rope_kernels();

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
