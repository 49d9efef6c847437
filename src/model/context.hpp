// What model code computes with.
#pragma once

#include <functional>
#include <string_view>

#include "kernels/device.hpp"

namespace rankwise::model {

/// The device, the stream that work is queued on, and the scratch memory of a step. Passed by
/// reference; outlives its users.
struct Compute {
    kernels::Device& device;
    kernels::Stream& stream;
    kernels::Arena& arena;
    /// Shown what each operation of a layer gave, where two passes are compared; otherwise empty.
    std::function<void(std::int64_t layer, std::string_view op, kernels::ConstMatrix value)> probe =
        {};

    /// A dense f32 matrix in scratch memory, valid until the enclosing Arena::Scope ends.
    [[nodiscard]] kernels::Matrix matrix(std::int64_t rows, std::int64_t cols) const {
        return {arena.take<float>(rows * cols), rows, cols};
    }
    /// Copies one dense matrix onto another of the same size.
    void copy(kernels::ConstMatrix from, kernels::Matrix to) const {
        ensure(from.dense() && to.dense() && from.rows == to.rows && from.cols == to.cols,
               "a copy of {} x {} to {} x {}", from.rows, from.cols, to.rows, to.cols);
        const std::int64_t bytes = from.rows * from.cols * size_of(from.dtype);
        device.copy(DeviceSpan<const std::byte>(from.handle, bytes),
                    DeviceSpan<std::byte>(to.handle, bytes), stream);
    }
};

}  // namespace rankwise::model
