// The contraction of a matmul as the runs that kernels go through.
#pragma once

#include <vector>

#include "kernels/cpu/matmul_kernels.hpp"
#include "src/base/reduction.hpp"

namespace rankwise::kernels::cpu {

/// Writes the runs of `contraction` to `runs`, in its order: ranges that touch are joined, empty
/// leaves are left out, and a leaf or node is added to what its parent has from the left, the first
/// being kept as it is (N2).
/// @throws InternalError if the number of leaves is not the tree's, or the tree is deeper than
/// kMaxLevels.
void plan_runs(const Contraction& contraction, std::vector<MatmulRun>& runs);

}  // namespace rankwise::kernels::cpu
