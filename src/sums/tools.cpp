#include "src/sums/tools.hpp"

namespace rankwise::sums {

std::span<float> wire(Tools tools, DeviceSpan<float> span) {
    tools.device.synchronize(tools.stream);
    std::byte* address = tools.device.wire_address(reinterpret_cast<std::byte*>(span.handle()));
    return {reinterpret_cast<float*>(address), static_cast<std::size_t>(span.size())};
}

std::span<const float> wire(Tools tools, DeviceSpan<const float> span) {
    return wire(tools, DeviceSpan<float>(const_cast<float*>(span.handle()), span.size()));
}

}  // namespace rankwise::sums
