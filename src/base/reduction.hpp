// The canonical order of sums that tensor ranks may split: NUMERICS N2.
#pragma once

#include <cstdint>
#include <vector>

#include "src/base/checked.hpp"

namespace rankwise {

/// A tree over B = product(radices) leaves; the root has radices[0] children, each of those
/// radices[1], and so on. No radices: one leaf, a plain sum. A node's value is its children's added
/// left to right in fp32; a leaf or node without any terms is skipped, never added as zero.
struct ReductionTree {
    std::vector<int> radices;

    [[nodiscard]] int leaves() const;
    /// Degrees of the tensor axis that hold whole subtrees: 1 and the products of the prefixes,
    /// ascending.
    [[nodiscard]] std::vector<int> tensor_degrees() const;
    /// Leaves of tensor rank `rank` of `degree`; the degree must be one of tensor_degrees().
    [[nodiscard]] Range leaves_of(int degree, int rank) const;
    /// The tree below one rank's root, and the tree above the ranks' partial sums.
    [[nodiscard]] ReductionTree below(int degree) const;
    [[nodiscard]] ReductionTree above(int degree) const;
    friend bool operator==(const ReductionTree&, const ReductionTree&) = default;
};

/// The model's reduction list: the longest prefix with product <= 15 of the prime factors of
/// `kv_heads` ascending, then those of heads / kv_heads ascending. 32/8 heads: 2,2,2; 14/2: 2,7;
/// 9/3: 3,3; 12/2: 2,2,3.
[[nodiscard]] ReductionTree reduction_tree(std::int64_t heads, std::int64_t kv_heads);

/// Leaf b of a dimension of `size` elements: units floor(bU/B) .. floor((b+1)U/B) of U = ceil(size
/// / unit), in elements. MLP and vocabulary: unit 16; attention output: unit head_dim. May be
/// empty.
[[nodiscard]] Range leaf_range(std::int64_t size, int leaves, int leaf, std::int64_t unit = 16);
[[nodiscard]] std::vector<Range> leaf_ranges(std::int64_t size, int leaves, std::int64_t unit = 16);

/// How the contraction dimension of a matmul is summed: per leaf one fp32 accumulator that starts
/// from zero and runs over its ranges in the order given, indices ascending inside each; leaves are
/// combined by the tree.
struct Contraction {
    ReductionTree tree;
    std::vector<std::vector<Range>>
        leaves;  ///< tree.leaves() entries; an entry without elements is an empty leaf

    /// One leaf, one range: a plain ascending sum over [0, size).
    [[nodiscard]] static Contraction straight(std::int64_t size);
    /// One range a leaf, as leaf_ranges().
    [[nodiscard]] static Contraction of_leaves(const ReductionTree& tree, std::int64_t size,
                                               std::int64_t unit = 16);
    [[nodiscard]] std::int64_t size() const;
    friend bool operator==(const Contraction&, const Contraction&) = default;
};

}  // namespace rankwise
