// What sums over ranks need to compute with.
#pragma once

#include <span>
#include <vector>

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

[[nodiscard]] inline std::vector<std::int64_t> sizes_of(std::span<const Range> ranges) {
    std::vector<std::int64_t> sizes;
    for (const Range range : ranges) sizes.push_back(range.size());
    return sizes;
}

/// Host view of device memory for a communicator; synchronises the stream.
[[nodiscard]] std::span<std::byte> wire(Tools tools, DeviceSpan<std::byte> span);
[[nodiscard]] std::span<float> wire(Tools tools, DeviceSpan<float> span);
template <class T>
[[nodiscard]] std::span<const T> wire(Tools tools, DeviceSpan<const T> span) {
    return wire(tools, DeviceSpan<T>(const_cast<T*>(span.handle()), span.size()));
}

/// The bytes of a dense matrix: what is moved keeps its type.
[[nodiscard]] DeviceSpan<std::byte> bytes_of(kernels::Matrix matrix);
[[nodiscard]] DeviceSpan<const std::byte> bytes_of(kernels::ConstMatrix matrix);

}  // namespace rankwise::sums
