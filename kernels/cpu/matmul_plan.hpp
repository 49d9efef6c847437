// The contraction of a matmul as the runs that kernels go through.
#pragma once

#include <vector>

#include "kernels/cpu/matmul_kernels.hpp"
#include "kernels/matmul.hpp"

namespace rankwise::kernels::cpu {

/// Writes the runs of `contraction` to `runs`, in its order: ranges that touch are joined, empty
/// leaves are left out, and a leaf or node is added to what its parent has from the left, the first
/// being kept as it is (N2).
/// @throws InternalError if the number of leaves is not the tree's, or the tree is deeper than
/// kMaxLevels.
void plan_runs(const Contraction& contraction, std::vector<MatmulRun>& runs);

/// The same for bf16 elements in pairs (N1), the runs in pairs: each range begins one, so ranges
/// that touch are joined only if the first has an even size. `elements`: what each run takes from a
/// row; a row that holds just that, one run after the other, has the runs where they say.
void plan_pairs(const Contraction& contraction, std::vector<MatmulRun>& runs,
                std::vector<ElementRun>& elements);

/// Whichever the spec needs; of floats the elements are the runs.
void plan_elements(const PackSpec& spec, std::vector<MatmulRun>& runs,
                   std::vector<ElementRun>& elements);

/// Terms of a packed operand, as the runs count them.
[[nodiscard]] std::int64_t packed_terms(DType dtype, const Contraction& contraction);

}  // namespace rankwise::kernels::cpu
