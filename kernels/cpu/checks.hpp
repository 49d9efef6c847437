// What the ops of the CPU device check before they touch memory.
#pragma once

#include <cstdint>

#include "kernels/tensor.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

/// @throws InternalError naming the op and the operand unless the matrix is of that type, f32 or
/// bf16, rows x cols, with rows that do not overlap.
inline void ensure_matrix(const char* op, const char* name, const ConstMatrix& matrix,
                          std::int64_t rows, std::int64_t cols, DType type = DType::f32) {
    ensure(type == DType::f32 || type == DType::bf16,
           "{}: {} is {}; the CPU device computes with F32 and BF16", op, name, name_of(type));
    ensure(matrix.dtype == type, "{}: {} is {}, expected {}", op, name, name_of(matrix.dtype),
           name_of(type));
    ensure(matrix.rows == rows && matrix.cols == cols, "{}: {} is {} x {}, expected {} x {}", op,
           name, matrix.rows, matrix.cols, rows, cols);
    ensure(matrix.rows <= 1 || matrix.stride >= matrix.cols,
           "{}: {} has rows of {} elements, {} apart", op, name, matrix.cols, matrix.stride);
}

/// body(element) with an element of the type: float for f32, std::uint16_t for bf16.
template <class Body>
void with_elements(DType type, const Body& body) {
    if (type == DType::bf16) {
        body(std::uint16_t{});
    } else {
        body(float{});
    }
}

inline void ensure_size(const char* op, const char* name, std::int64_t size,
                        std::int64_t expected) {
    ensure(size == expected, "{}: {} has {} elements, expected {}", op, name, size, expected);
}

}  // namespace rankwise::kernels::cpu
