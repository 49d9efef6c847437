#include "kernels/cpu/norm_kernels.hpp"

#include "kernels/cpu/isa/lanes.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

template <class Element>
void forward(const Element* x, const float* weight, std::int64_t groups, std::int64_t size,
             float eps, Element* y, float* inv_rms) {
    for (std::int64_t g = 0; g < groups; ++g, x += size, y += size) {
        F16 squares = zero();
        each_sixteen(size, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
            const F16 value = lanes.load(x + i);
            squares = fma(value, value, squares);
        });
        const float mean = sum(squares) / static_cast<float>(size);
        const F16 scale = set(1.0F) / sqrt(set(mean + eps));
        each_sixteen(size, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
            lanes.store(lanes.load(weight + i) * (lanes.load(x + i) * scale), y + i);
        });
        if (inv_rms != nullptr) inv_rms[g] = first_lane(scale);
    }
}

template <bool kAdd, class Element>
void backward_rows(const Element* dy, const Element* x, const float* weight, const float* inv_rms,
                   std::int64_t groups, std::int64_t size, Element* dx) {
    for (std::int64_t g = 0; g < groups; ++g, dy += size, x += size, dx += size) {
        F16 products = zero();
        each_sixteen(size, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
            products =
                fma(lanes.load(weight + i) * lanes.load(dy + i), lanes.load(x + i), products);
        });
        const float r = inv_rms[g];
        const F16 scale = set(r);
        const F16 pull = set(r * r * r * (sum(products) / static_cast<float>(size)));
        each_sixteen(size, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
            const F16 direct = lanes.load(weight + i) * lanes.load(dy + i) * scale;
            F16 value = fnma(lanes.load(x + i), pull, direct);
            if (kAdd) value = lanes.load(dx + i) + value;
            lanes.store(value, dx + i);
        });
    }
}

template <class Element>
void backward(const Element* dy, const Element* x, const float* weight, const float* inv_rms,
              std::int64_t groups, std::int64_t size, Element* dx, bool add) {
    if (add) {
        backward_rows<true>(dy, x, weight, inv_rms, groups, size, dx);
    } else {
        backward_rows<false>(dy, x, weight, inv_rms, groups, size, dx);
    }
}

/// sums[i] = sum over rows of dy x r, of kWide times sixteen columns side by side.
template <int kWide, class Element, class Lanes>
HWY_INLINE void column_sums(const Element* dy, std::int64_t dy_stride, const Element* x,
                            std::int64_t x_stride, const float* inv_rms, std::int64_t rows,
                            std::int64_t groups, Lanes lanes, float* sums) {
    F16 total[kWide];
    for (F16& sum : total) sum = zero();
    for (std::int64_t t = 0; t < rows; ++t, dy += dy_stride, x += x_stride) {
        const F16 r = set(inv_rms[t * groups]);
#pragma GCC unroll 4
        for (int w = 0; w < kWide; ++w) {
            const F16 normalised = lanes.load(x + w * kLanes) * r;
            total[w] = fma(lanes.load(dy + w * kLanes), normalised, total[w]);
        }
    }
    for (int w = 0; w < kWide; ++w) lanes.store(total[w], sums + w * kLanes);
}

template <class Element>
void weight_gradient(const Element* dy, std::int64_t dy_stride, const Element* x,
                     std::int64_t x_stride, const float* inv_rms, std::int64_t rows,
                     std::int64_t groups, std::int64_t size, float* sums) {
    constexpr int kWide = 4;  // as many sums as an addition takes cycles, and lines side by side
    for (std::int64_t g = 0; g < groups; ++g) {
        const auto columns = [&]<int kSums>(std::int64_t first, auto lanes) RANKWISE_INLINE {
            const std::int64_t column = g * size + first;
            column_sums<kSums>(dy + column, dy_stride, x + column, x_stride, inv_rms + g, rows,
                               groups, lanes, sums + column);
        };
        std::int64_t first = 0;
        for (; first + kWide * kLanes <= size; first += kWide * kLanes) {
            columns.template operator()<kWide>(first, WholeLanes{});
        }
        each_sixteen(size - first, [&](std::int64_t i, auto lanes) RANKWISE_INLINE {
            columns.template operator()<1>(first + i, lanes);
        });
    }
}

}  // namespace

template <class Element>
const NormKernels<Element>& norm_kernels() {
    static constexpr NormKernels<Element> kernels{forward<Element>, backward<Element>,
                                                  weight_gradient<Element>};
    return kernels;
}
template const NormKernels<float>& norm_kernels();
template const NormKernels<std::uint16_t>& norm_kernels();

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
