#include "kernels/cpu/matmul_plan.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace rankwise::kernels::cpu {
namespace {

bool has_terms(const std::vector<Range>& leaf) {
    return std::ranges::any_of(leaf, [](Range range) { return !range.empty(); });
}

}  // namespace

void plan_runs(const Contraction& contraction, std::vector<MatmulRun>& runs) {
    const ReductionTree& tree = contraction.tree;
    const int leaves = tree.leaves();
    const int levels = narrow<int>(tree.radices.size());
    ensure(std::ssize(contraction.leaves) == leaves, "a contraction of {} leaves for a tree of {}",
           contraction.leaves.size(), leaves);
    ensure(levels <= kMaxLevels, "a reduction tree of {} levels; at most {} are supported", levels,
           kMaxLevels);

    const auto any_terms = [&](int begin, int end) {
        return std::any_of(contraction.leaves.begin() + begin, contraction.leaves.begin() + end,
                           has_terms);
    };
    runs.clear();
    for (int leaf = 0; leaf < leaves; ++leaf) {
        bool begins = true;
        for (Range range : contraction.leaves[static_cast<std::size_t>(leaf)]) {
            if (range.empty()) continue;
            if (!begins && runs.back().x + runs.back().count == range.begin) {
                runs.back().count += range.size();
                continue;
            }
            runs.push_back({.x = range.begin, .count = range.size(), .begins_leaf = begins});
            begins = false;
        }
        if (begins) continue;
        // Up from the leaf: `child` leaves lie below the finished child, `child * radix` below its
        // parent.
        MatmulRun& last = runs.back();
        int child = 1;
        for (int level = levels - 1; level >= 0; --level) {
            const int parent = child * tree.radices[static_cast<std::size_t>(level)];
            const int parent_begin = leaf / parent * parent;
            const int child_begin = leaf / child * child;
            if (any_terms(parent_begin, child_begin)) {
                last.add_levels[last.adds++] = static_cast<std::int8_t>(level);
            }
            if (any_terms(child_begin + child, parent_begin + parent)) {
                last.save_level = static_cast<std::int8_t>(level);
                break;
            }
            child = parent;
        }
    }
}

}  // namespace rankwise::kernels::cpu
