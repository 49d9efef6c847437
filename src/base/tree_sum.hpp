// Combining the leaves of a reduction tree, or the ranks that hold them: NUMERICS N2.
#pragma once

#include "src/base/reduction.hpp"

namespace rankwise {

/// Adds up the leaves that are there: a node's children left to right, into the first of them; what
/// is not there is skipped. `present(leaf)` says whether a leaf is there, `add(to, from)` adds one
/// leaf's value to another's.
/// @return the leaf that holds the total, or -1 if there is none.
template <class Present, class Add>
int tree_sum(const ReductionTree& tree, const Present& present, const Add& add, int first_leaf = 0,
             std::size_t level = 0) {
    if (level == tree.radices.size()) return present(first_leaf) ? first_leaf : -1;
    int leaves_of_child = 1;
    for (std::size_t i = level + 1; i < tree.radices.size(); ++i)
        leaves_of_child *= tree.radices[i];
    int total = -1;
    for (int child = 0; child < tree.radices[level]; ++child) {
        const int value =
            tree_sum(tree, present, add, first_leaf + child * leaves_of_child, level + 1);
        if (value < 0) continue;
        if (total < 0) {
            total = value;
        } else {
            add(total, value);
        }
    }
    return total;
}

}  // namespace rankwise
