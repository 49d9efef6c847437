// What tests of the row-wise ops share: operands in strided matrices, and the lanes of N9 as plain
// loops.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/maths_kernels.hpp"
#include "kernels/tensor.hpp"
#include "src/base/error.hpp"
#include "src/base/philox.hpp"

namespace rankwise::test {

/// Uniform in (-scale, scale).
inline std::vector<float> random_floats(std::int64_t count, std::uint64_t seed,
                                        float scale = 1.0F) {
    RandomSequence random(RandomStream(seed, Purpose::data_generation));
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(2.0 * random.uniform() - 1.0) * scale;
    return values;
}

/// A matrix over all of `span`: rows `stride` floats apart.
inline kernels::Matrix matrix(DeviceSpan<float> span, std::int64_t rows, std::int64_t cols,
                              std::int64_t stride) {
    EXPECT_GE(span.size(), rows * stride);
    return {reinterpret_cast<std::byte*>(span.handle()), DType::f32, rows, cols, stride};
}

/// The same matrix said to hold bfloat16.
inline kernels::Matrix as_bf16(kernels::Matrix matrix) {
    matrix.dtype = DType::bf16;
    return matrix;
}

/// Sixteen lanes in which terms are summed by fma: term i goes to lane i mod 16; then the fixed
/// tree.
template <class Float>
class LaneSum {
  public:
    void add(std::int64_t i, Float a, Float b) {
        Float& lane = lanes_[static_cast<std::size_t>(i % 16)];
        lane = std::fma(a, b, lane);
    }
    [[nodiscard]] Float total() const {
        auto lanes = lanes_;
        for (std::size_t step = 8; step > 0; step /= 2) {
            for (std::size_t i = 0; i < step; ++i) lanes[i] = lanes[i] + lanes[i + step];
        }
        return lanes[0];
    }

  private:
    std::array<Float, 16> lanes_{};
};

/// The float functions of kernels/cpu/isa/maths.hpp, one value at a time (tests/kernels/maths
/// bounds their errors).
inline float exp32(float x) {
    float y = 0.0F;
    kernels::cpu::avx2::maths_kernels().exp(&x, &y, 1);
    return y;
}
inline float log32(float x) {
    float y = 0.0F;
    kernels::cpu::avx2::maths_kernels().log(&x, &y, 1);
    return y;
}

}  // namespace rankwise::test
