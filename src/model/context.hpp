// What model code computes with.
#pragma once

#include "kernels/device.hpp"

namespace rankwise::model {

/// The device, the stream that work is queued on, and the scratch memory of a step. Passed by
/// reference; outlives its users.
struct Compute {
    kernels::Device& device;
    kernels::Stream& stream;
    kernels::Arena& arena;

    /// A dense f32 matrix in scratch memory, valid until the enclosing Arena::Scope ends.
    [[nodiscard]] kernels::Matrix matrix(std::int64_t rows, std::int64_t cols) const {
        return {arena.take<float>(rows * cols), rows, cols};
    }
};

}  // namespace rankwise::model
