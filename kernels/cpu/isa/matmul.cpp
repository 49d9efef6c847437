// y = x W^T of floats, and the table of the family.
#include "kernels/cpu/isa/matmul_family.hpp"
#include "kernels/cpu/isa/matmul_rows.hpp"

namespace rankwise::kernels::cpu::RANKWISE_ISA {
namespace {

void matmul(const MatmulBlock& block) {
    const std::int64_t blocks = ceil_div(block.rows, block_rows(block.depth));
    for (std::int64_t i = 0; i < blocks; ++i) {
        const std::int64_t first = begin_of_block(block.rows, blocks, i);
        row_block<Single>(block, first, begin_of_block(block.rows, blocks, i + 1) - first);
    }
}

}  // namespace

const MatmulKernels& matmul_kernels() {
    static constexpr MatmulKernels kernels{matmul,          kTogether,       kTileRows,
                                           pack_transposed, weight_gradient, bias_gradient};
    return kernels;
}

}  // namespace rankwise::kernels::cpu::RANKWISE_ISA
