// Views of matrices in device memory: what every op takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/base/checked.hpp"
#include "src/base/device_span.hpp"
#include "src/base/dtype.hpp"

namespace rankwise::kernels {

/// rows x cols elements of `dtype` in device memory, rows `stride` elements apart, columns
/// adjacent. Does not own. `Byte` is std::byte or const std::byte.
template <class Byte>
struct BasicMatrix {
    Byte* handle = nullptr;
    DType dtype = DType::f32;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t stride = 0;

    BasicMatrix() = default;
    BasicMatrix(Byte* memory, DType type, std::int64_t row_count, std::int64_t col_count,
                std::int64_t row_stride)
        : handle(memory), dtype(type), rows(row_count), cols(col_count), stride(row_stride) {}
    /// Dense fp32 rows x cols over a span of that many floats.
    template <class Float>
    BasicMatrix(DeviceSpan<Float> span, std::int64_t row_count, std::int64_t col_count)
        : BasicMatrix(reinterpret_cast<Byte*>(span.handle()), DType::f32, row_count, col_count,
                      col_count) {
        ensure(span.size() == row_count * col_count, "a span of {} seen as {} x {}", span.size(),
               row_count, col_count);
    }
    template <class Other, class = std::enable_if_t<std::is_same_v<const Other, Byte> &&
                                                    !std::is_const_v<Other>>>
    BasicMatrix(const BasicMatrix<Other>& other)
        : BasicMatrix(other.handle, other.dtype, other.rows, other.cols, other.stride) {}

    [[nodiscard]] BasicMatrix row_range(Range range) const {
        return {handle + range.begin * stride * size_of(dtype), dtype, range.size(), cols, stride};
    }
    [[nodiscard]] BasicMatrix col_range(Range range) const {
        return {handle + range.begin * size_of(dtype), dtype, rows, range.size(), stride};
    }
    [[nodiscard]] bool dense() const { return stride == cols || rows <= 1; }
};

/// A distance between rows of `cols` elements at which products read them where they lie: not a
/// multiple of 512 bytes, at which the rows of a tile, or a column of many rows, fall on few lines
/// of a cache.
[[nodiscard]] inline std::int64_t stride_for_products(std::int64_t cols, DType dtype) {
    constexpr std::int64_t kLine = 64;
    return cols * size_of(dtype) % 512 == 0 ? cols + kLine / size_of(dtype) : cols;
}

using Matrix = BasicMatrix<std::byte>;
using ConstMatrix = BasicMatrix<const std::byte>;

}  // namespace rankwise::kernels
