// What the ops of the CPU device check before they touch memory.
#pragma once

#include "kernels/tensor.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {

/// @throws InternalError naming the op and the operand unless the matrix is f32, rows x cols, with
/// rows that do not overlap.
inline void ensure_matrix(const char* op, const char* name, const ConstMatrix& matrix,
                          std::int64_t rows, std::int64_t cols) {
    ensure(matrix.dtype == DType::f32, "{}: {} is {}; the CPU device computes in F32", op, name,
           name_of(matrix.dtype));
    ensure(matrix.rows == rows && matrix.cols == cols, "{}: {} is {} x {}, expected {} x {}", op,
           name, matrix.rows, matrix.cols, rows, cols);
    ensure(matrix.rows <= 1 || matrix.stride >= matrix.cols,
           "{}: {} has rows of {} elements, {} apart", op, name, matrix.cols, matrix.stride);
}

inline void ensure_size(const char* op, const char* name, std::int64_t size,
                        std::int64_t expected) {
    ensure(size == expected, "{}: {} has {} elements, expected {}", op, name, size, expected);
}

}  // namespace rankwise::kernels::cpu
