#include "src/sums/tools.hpp"

namespace rankwise::sums {
namespace {

template <class Byte>
DeviceSpan<Byte> all_of(const kernels::BasicMatrix<Byte>& matrix) {
    ensure(matrix.dense(), "a matrix to be moved has gaps between its rows");
    return {matrix.handle, matrix.rows * matrix.cols * size_of(matrix.dtype)};
}

}  // namespace

std::span<std::byte> wire(Tools tools, DeviceSpan<std::byte> span) {
    tools.device.synchronize(tools.stream);
    return {tools.device.wire_address(span.handle()), static_cast<std::size_t>(span.size())};
}

std::span<float> wire(Tools tools, DeviceSpan<float> span) {
    const std::span<std::byte> bytes = wire(tools, cast_span<std::byte>(span));
    return {reinterpret_cast<float*>(bytes.data()), static_cast<std::size_t>(span.size())};
}

DeviceSpan<std::byte> bytes_of(kernels::Matrix matrix) {
    return all_of(matrix);
}

DeviceSpan<const std::byte> bytes_of(kernels::ConstMatrix matrix) {
    return all_of(matrix);
}

}  // namespace rankwise::sums
