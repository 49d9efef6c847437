#include "kernels/cpu/matmul_call.hpp"

#include "kernels/cpu/scratch.hpp"
#include "src/base/checked.hpp"
#include "src/base/error.hpp"

namespace rankwise::kernels::cpu {
namespace {

/// Multiply-adds that take about as long as waking another thread.
constexpr std::int64_t kWorthSharing = 200'000;
/// Multiply-adds from which on a loop has more tasks than threads, so that a thread that is held up
/// costs less.
constexpr std::int64_t kWorthBalancing = 20'000'000;

}  // namespace

void require_multiplied(const char* op, const char* name, DType dtype) {
    ensure(dtype == DType::f32 || dtype == DType::bf16,
           "{}: {} has element type {}; the CPU device multiplies F32 and BF16", op, name,
           name_of(dtype));
}

void require_same(const char* op, const char* name, DType dtype, const char* other_name,
                  DType other) {
    ensure(dtype == other, "{}: {} has element type {}, {} has {}", op, name, name_of(dtype),
           other_name, name_of(other));
}

float* matmul_scratch(std::int64_t floats) {
    thread_local Scratch scratch;
    return scratch.take(floats);
}

std::int64_t wanted_tasks(std::int64_t work, int threads) {
    if (threads == 1 || work < kWorthSharing) return 1;
    return std::int64_t{threads} * (work < kWorthBalancing ? 1 : 3);
}

}  // namespace rankwise::kernels::cpu
