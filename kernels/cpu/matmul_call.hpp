// What the calls of the matmul family share: kernels, types, scratch memory, the split into tasks.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/matmul_kernels.hpp"
#include "src/base/checked.hpp"
#include "src/base/dtype.hpp"

namespace rankwise::kernels::cpu {

[[nodiscard]] inline const MatmulKernels& matmul_kernels(Isa isa) {
    return has_avx512(isa) ? avx512::matmul_kernels() : avx2::matmul_kernels();
}
[[nodiscard]] inline const Bf16MatmulKernels& bf16_matmul_kernels(Isa isa) {
    if (isa == Isa::avx512_bf16) return avx512_bf16::bf16_matmul_kernels();
    return isa == Isa::avx512 ? avx512::bf16_matmul_kernels() : avx2::bf16_matmul_kernels();
}
[[nodiscard]] inline const Bf16PackKernels& bf16_pack_kernels(Isa isa) {
    return has_avx512(isa) ? avx512::bf16_pack_kernels() : avx2::bf16_pack_kernels();
}

/// @throws InternalError unless the operand is F32 or BF16.
void require_multiplied(const char* op, const char* name, DType dtype);
/// @throws InternalError unless both are the same.
void require_same(const char* op, const char* name, DType dtype, const char* other_name,
                  DType other);

/// Memory of this thread for `floats` floats, aligned to 64 bytes: kept and grown, so that a step
/// allocates nothing.
[[nodiscard]] float* matmul_scratch(std::int64_t floats);

/// Into how many tasks an op of `work` multiply-adds is split, if it can be.
[[nodiscard]] std::int64_t wanted_tasks(std::int64_t work, int threads);

/// Rows [0, count) as whole tiles of the instruction set, dealt to tasks.
struct TileSplit {
    std::int64_t count = 0;
    std::int64_t tile_rows = 1;

    TileSplit(Isa isa, std::int64_t rows) : count(rows), tile_rows(matmul_kernels(isa).tile_rows) {}
    [[nodiscard]] std::int64_t tiles() const { return ceil_div(count, tile_rows); }
    /// Rows of the part-th of `parts` parts, of about as many tiles each; the last tile may be cut.
    [[nodiscard]] Range rows_of(std::int64_t parts, std::int64_t part) const {
        const Range tile = split(tiles(), parts, part);
        return intersect({tile.begin * tile_rows, tile.end * tile_rows}, {0, count});
    }
};

}  // namespace rankwise::kernels::cpu
