// What model code computes with.
#pragma once

#include <functional>
#include <string_view>

#include <numeric>
#include <vector>

#include "src/sums/tools.hpp"

namespace rankwise::model {

/// What an operation of a layer gave.
struct Probed {
    std::int64_t layer = 0;
    std::string_view op;
    kernels::ConstMatrix value;
    bool whole = true;      ///< every tensor rank has all of it; else its own part
    bool backward = false;  ///< a gradient
};

/// Where a pass keeps what its backward pass reads.
struct Kept {
    kernels::Arena& arena;
    template <class T>
    [[nodiscard]] DeviceSpan<T> take(std::int64_t size) const {
        return arena.take<T>(size, kernels::Use::activation);
    }
};

/// The device, the stream that work is queued on, and the scratch memory of a step. Passed by
/// reference; outlives its users.
struct Compute {
    kernels::Device& device;
    kernels::Stream& stream;
    kernels::Arena& arena;
    /// Shown what each operation of a layer gave, where passes are compared; otherwise empty.
    std::function<void(const Probed&)> probe = {};
    /// Where passes keep what their backward passes read, if not in `arena`: the micro-batches of a
    /// pipeline do not end in the reverse of the order in which they begin.
    kernels::Arena* kept_arena = nullptr;
    /// Told before each layer, forward and backward, that work goes on: for a watchdog. May be
    /// empty.
    std::function<void()> beat = {};
    /// Told before masters or an optimizer's moments change: what is being saved is read where it
    /// lies until then. Empty: nothing is being saved.
    std::function<void()> before_change = {};

    /// For whoever is about to change masters or moments.
    void will_change() const {
        if (before_change) before_change();
    }
    [[nodiscard]] Kept kept() const { return {kept_arena != nullptr ? *kept_arena : arena}; }
    /// The same, keeping in `arena`.
    [[nodiscard]] Compute in_scratch() const {
        return {device, stream, arena, probe, nullptr, beat};
    }
    /// Device::over_rows; all rows at once where each operation shows what it gave.
    void over_rows(std::int64_t count, FunctionRef<void(Range rows)> work) const {
        if (probe) {
            work({0, count});
        } else {
            device.over_rows(count, work);
        }
    }
    /// A dense matrix among what a pass keeps.
    [[nodiscard]] kernels::Matrix kept_matrix(std::int64_t rows, std::int64_t cols,
                                              DType dtype = DType::f32) const {
        return matrix_in(kept(), rows, cols, cols, dtype);
    }

    /// A dense matrix in scratch memory, valid until the enclosing Arena::Scope ends.
    [[nodiscard]] kernels::Matrix matrix(std::int64_t rows, std::int64_t cols,
                                         DType dtype = DType::f32) const {
        return matrix_in(arena, rows, cols, cols, dtype);
    }
    /// The same, kept or not, for rows that products read and nobody moves: they may have gaps
    /// between them.
    [[nodiscard]] kernels::Matrix matrix_for_products(bool keep, std::int64_t rows,
                                                      std::int64_t cols, DType dtype) const {
        const std::int64_t stride = kernels::stride_for_products(cols, dtype);
        return keep ? matrix_in(kept(), rows, cols, stride, dtype)
                    : matrix_in(arena, rows, cols, stride, dtype);
    }
    /// What sums over ranks compute with.
    [[nodiscard]] sums::Tools tools() const { return {device, stream, arena}; }

    /// The bits of a dense matrix, row by row: for those who look at what was computed.
    [[nodiscard]] std::vector<std::byte> bytes_of(kernels::ConstMatrix x) const {
        ensure(x.dense(), "the bytes of a matrix that is not dense");
        return device.kernels::Memory::download<std::byte>(
            DeviceSpan<const std::byte>(x.handle, x.rows * x.cols * size_of(x.dtype)), stream);
    }

    /// Copies a matrix onto another of the same size; rows of both may have gaps between them.
    void copy_rows(kernels::ConstMatrix from, kernels::Matrix to) const {
        // Adding to zeros would be a sum; a gather with the identity is a copy with a stride.
        std::vector<std::int64_t> identity(static_cast<std::size_t>(from.rows));
        std::iota(identity.begin(), identity.end(), std::int64_t{0});
        device.gather_rows({.from = from, .rows = identity, .to = to}, stream);
    }
    /// Copies one dense matrix onto another of the same size.
    void copy(kernels::ConstMatrix from, kernels::Matrix to) const {
        ensure(from.dense() && to.dense() && from.rows == to.rows && from.cols == to.cols &&
                   from.dtype == to.dtype,
               "a copy of {} x {} {} to {} x {} {}", from.rows, from.cols, name_of(from.dtype),
               to.rows, to.cols, name_of(to.dtype));
        const std::int64_t bytes = from.rows * from.cols * size_of(from.dtype);
        device.copy(DeviceSpan<const std::byte>(from.handle, bytes),
                    DeviceSpan<std::byte>(to.handle, bytes), stream);
    }

  private:
    template <class Memory>
    [[nodiscard]] static kernels::Matrix matrix_in(Memory&& memory, std::int64_t rows,
                                                   std::int64_t cols, std::int64_t stride,
                                                   DType dtype) {
        const DeviceSpan<std::byte> bytes =
            memory.template take<std::byte>(rows * stride * size_of(dtype));
        return {bytes.handle(), dtype, rows, cols, stride};
    }
};

}  // namespace rankwise::model
