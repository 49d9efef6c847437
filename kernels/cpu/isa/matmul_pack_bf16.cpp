// bf16 elements rounded, paired and summed.
#include "kernels/cpu/isa/bf16.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

void round_row(const float* from, std::int64_t count, std::uint16_t* to) {
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) store_elements(to + i, rounded(load(from + i)));
    if (i < count) {
        store_elements(to + i, rounded(load(from + i, first_lanes(count - i))), count - i);
    }
}

void pair_rows(const std::uint16_t* first, const std::uint16_t* second, std::int64_t count,
               float* to) {
    for (int u = 0; u < kUnits; ++u) {
        const std::int64_t at = u * kWidth;
        const bool whole = at + kWidth <= count;
        const auto elements = [&](const std::uint16_t* from) {
            return whole ? load_elements(from + at) : load_elements(from + at, count - at);
        };
        store(to + at, pair(elements(first), second == nullptr ? Elements{} : elements(second)));
    }
}

/// Columns of kRegisters registers; the last ones where `left` says.
template <int kRegisters>
RANKWISE_INLINE void column_sums(const std::uint16_t* dy, std::int64_t rows, std::int64_t stride,
                                 float* db, std::int64_t left, bool adding) {
    const bool whole = left >= kRegisters * kWidth;
    Vec sum[kRegisters];
    RANKWISE_UNROLL for (int u = 0; u < kRegisters; ++u) sum[u] = zero();
    for (std::int64_t t = 0; t < rows; ++t) {
        RANKWISE_UNROLL for (int u = 0; u < kRegisters; ++u) {
            const std::uint16_t* from = dy + t * stride + u * kWidth;
            sum[u] = add(sum[u], widen(whole ? load_elements(from)
                                             : load_elements(from, left - u * kWidth)));
        }
    }
    RANKWISE_UNROLL for (int u = 0; u < kRegisters; ++u) {
        const Mask mask = first_lanes(left - u * kWidth);
        float* to = db + u * kWidth;
        store(to, adding ? add(load(to, mask), sum[u]) : sum[u], mask);
    }
}

void bias_gradient(const std::uint16_t* dy, std::int64_t rows, std::int64_t stride, float* db,
                   std::int64_t columns, bool adding) {
    constexpr int kMany = 4;
    std::int64_t first = 0;
    for (; first + kMany * kWidth <= columns; first += kMany * kWidth) {
        column_sums<kMany>(dy + first, rows, stride, db + first, kMany * kWidth, adding);
    }
    for (; first < columns; first += kWidth) {
        column_sums<1>(dy + first, rows, stride, db + first, columns - first, adding);
    }
}

}  // namespace

const Bf16PackKernels& bf16_pack_kernels() {
    static constexpr Bf16PackKernels kernels{round_row, pair_rows, bias_gradient};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
