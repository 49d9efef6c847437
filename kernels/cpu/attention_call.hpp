// What the calls of attention share: checks, the split into tasks, scratch memory, the choice of
// kernels.
#pragma once

#include <cstdint>

#include "kernels/attention.hpp"
#include "kernels/cpu/attention_kernels.hpp"
#include "kernels/cpu/attention_plan.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/thread_team.hpp"
#include "kernels/device.hpp"

namespace rankwise::kernels::cpu {

template <class Element>
[[nodiscard]] const AttentionKernels<Element>& attention_kernels(Isa isa) {
    return has_avx512(isa) ? avx512::attention_kernels<Element>()
                           : avx2::attention_kernels<Element>();
}

/// The working memory of the task that the calling thread runs.
[[nodiscard]] inline Scratch& task_scratch() {
    thread_local Scratch scratch;
    return scratch;
}

struct HeadShape {
    std::int64_t kv_heads = 0;
    std::int64_t group = 0;  ///< query heads a KV head
    std::int64_t head_dim = 0;
    std::int64_t value_dim = 0;
};

/// @throws InternalError if q is neither f32 nor bf16, or if the heads do not divide, or do not
/// fill its columns.
[[nodiscard]] inline HeadShape check_heads(const char* op, const ConstMatrix& q, std::int64_t heads,
                                           std::int64_t kv_heads, std::int64_t head_dim,
                                           std::int64_t value_dim) {
    ensure(q.dtype == DType::f32 || q.dtype == DType::bf16,
           "{}: q is {}; this device computes in F32 and BF16", op, name_of(q.dtype));
    ensure(kv_heads > 0 && heads > 0 && heads % kv_heads == 0,
           "{}: {} query heads over {} KV heads", op, heads, kv_heads);
    ensure(head_dim > 0 && q.cols == heads * head_dim,
           "{}: q has {} columns, which are not {} heads of size {}", op, q.cols, heads, head_dim);
    ensure(q.dtype == DType::f32 || (head_dim % 2 == 0 && value_dim % 2 == 0),
           "{}: keys of size {} and values of size {}, of which BF16 elements make no pairs", op,
           head_dim, value_dim);
    ensure(value_dim > 0, "{}: values of size {}", op, value_dim);
    return {kv_heads, heads / kv_heads, head_dim, value_dim};
}

/// The size of one of `heads` heads that fill these columns; 0 if there are none.
[[nodiscard]] inline std::int64_t head_size(const ConstMatrix& matrix, std::int64_t heads) {
    return heads > 0 ? matrix.cols / heads : 0;
}

/// @throws InternalError if the matrix is not of this type and shape.
inline void check_operand(const char* op, const char* what, const ConstMatrix& matrix, DType dtype,
                          std::int64_t rows, std::int64_t cols) {
    ensure(matrix.dtype == dtype, "{}: {} is {}, expected {}", op, what, name_of(matrix.dtype),
           name_of(dtype));
    ensure(matrix.rows == rows && matrix.cols == cols && matrix.stride >= cols,
           "{}: {} is {} x {} (stride {}), expected {} x {}", op, what, matrix.rows, matrix.cols,
           matrix.stride, rows, cols);
}

/// Calls body(item, head) for all of both: an item a task if they are enough to fill the team, else
/// one head of an item.
template <class Body>
void run_for_heads(ThreadTeam& team, std::int64_t items, std::int64_t heads, const Body& body) {
    constexpr std::int64_t kTasksAThread = 8;
    if (items >= kTasksAThread * team.threads() || team.threads() == 1) {
        team.run(items, [&](std::int64_t item) {
            for (std::int64_t head = 0; head < heads; ++head) body(item, head);
        });
    } else {
        team.run(items * heads, [&](std::int64_t task) { body(task / heads, task % heads); });
    }
}

}  // namespace rankwise::kernels::cpu
