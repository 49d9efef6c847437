#include "kernels/cpu/matmul_plan.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace rankwise::kernels::cpu {
namespace {

bool has_terms(const std::vector<Range>& leaf) {
    return std::ranges::any_of(leaf, [](Range range) { return !range.empty(); });
}

/// `pairs`: a run that others are joined to holds whole pairs.
void plan(const Contraction& contraction, bool pairs, std::vector<MatmulRun>& runs) {
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
            if (!begins && runs.back().x + runs.back().count == range.begin &&
                !(pairs && runs.back().count % 2 != 0)) {
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

}  // namespace

void plan_runs(const Contraction& contraction, std::vector<MatmulRun>& runs) {
    plan(contraction, false, runs);
}

void plan_pairs(const Contraction& contraction, std::vector<MatmulRun>& runs,
                std::vector<ElementRun>& elements) {
    plan(contraction, true, runs);
    elements.clear();
    std::int64_t terms = 0;
    for (MatmulRun& run : runs) {
        elements.push_back({run.x, run.count});
        run.x = terms;
        run.count = ceil_div(run.count, 2);
        terms += run.count;
    }
}

void plan_elements(const PackSpec& spec, std::vector<MatmulRun>& runs,
                   std::vector<ElementRun>& elements) {
    if (spec.dtype == DType::bf16) {
        plan_pairs(spec.contraction, runs, elements);
        return;
    }
    plan_runs(spec.contraction, runs);
    elements.clear();
    for (const MatmulRun& run : runs) elements.push_back({run.x, run.count});
}

std::int64_t packed_terms(DType dtype, const Contraction& contraction) {
    if (dtype != DType::bf16) return contraction.size();
    std::int64_t terms = 0;
    for (const auto& leaf : contraction.leaves) {
        for (Range range : leaf) terms += ceil_div(range.size(), 2);
    }
    return terms;
}

}  // namespace rankwise::kernels::cpu
