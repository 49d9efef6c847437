// A rank of tests of sums, and numbers whose order can be told from their sum.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "src/sums/tools.hpp"
#include "tests/support/devices.hpp"

namespace rankwise::sums {

using Values = std::vector<float>;

struct Rank {
    Rank() : device({"plain", {.threads = 1}}), arena(*device) {}
    Tools tools() { return {*device, device.stream(), arena}; }
    kernels::Matrix matrix(const Values& values, std::int64_t rows, std::int64_t cols) {
        const DeviceSpan<float> span = arena.take<float>(rows * cols);
        device->upload(std::span<const float>(values), span, device.stream());
        return {span, rows, cols};
    }
    Values values(kernels::Matrix matrix) {
        return device.get(DeviceSpan<const float>(reinterpret_cast<const float*>(matrix.handle),
                                                  matrix.rows * matrix.cols));
    }
    test::DeviceUnderTest device;
    kernels::Arena arena;
};

/// Numbers of very different sizes, so that every other order gives other bits.
inline Values numbers(std::int64_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    Values values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal(random) * std::exp2f(4.0F * normal(random));
    return values;
}

}  // namespace rankwise::sums
