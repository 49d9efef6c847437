// What sums over ranks need to compute with.
#pragma once

#include <span>

#include "kernels/device.hpp"

namespace rankwise::sums {

struct Tools {
    kernels::Device& device;
    kernels::Stream& stream;
    kernels::Arena& arena;
};

[[nodiscard]] inline std::int64_t total_of(std::span<const std::int64_t> counts) {
    std::int64_t total = 0;
    for (const std::int64_t count : counts) total += count;
    return total;
}

/// Host view of device memory for a communicator; synchronises the stream.
[[nodiscard]] std::span<float> wire(Tools tools, DeviceSpan<float> span);
[[nodiscard]] std::span<const float> wire(Tools tools, DeviceSpan<const float> span);

}  // namespace rankwise::sums
