// Boxes: where a shard lies in its global tensor.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "src/base/checked.hpp"

namespace rankwise {

/// Tensors of this project have one or two dimensions; a vector of n elements is held as the matrix
/// [1, n]: one row, which ZeRO never cuts. `cols` is the fast dimension.
struct Shape {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    bool vector = false;  ///< one-dimensional in files: [cols]; then rows == 1

    [[nodiscard]] static constexpr Shape matrix(std::int64_t rows, std::int64_t cols) {
        return {rows, cols, false};
    }
    [[nodiscard]] static constexpr Shape of_vector(std::int64_t size) { return {1, size, true}; }
    [[nodiscard]] constexpr std::int64_t size() const { return rows * cols; }
    friend constexpr bool operator==(const Shape&, const Shape&) = default;
};

[[nodiscard]] std::string to_string(Shape shape);

/// A rectangle of a global tensor: rows x columns.
struct Box {
    Range rows;
    Range cols;
    [[nodiscard]] static constexpr Box whole(Shape shape) {
        return {{0, shape.rows}, {0, shape.cols}};
    }
    [[nodiscard]] constexpr std::int64_t size() const { return rows.size() * cols.size(); }
    [[nodiscard]] constexpr bool empty() const { return rows.empty() || cols.empty(); }
    friend constexpr bool operator==(const Box&, const Box&) = default;
};

[[nodiscard]] constexpr Box intersect(const Box& a, const Box& b) {
    return {intersect(a.rows, b.rows), intersect(a.cols, b.cols)};
}

[[nodiscard]] std::string to_string(const Box& box);

}  // namespace rankwise
