#include "src/base/reduction.hpp"

namespace rankwise {
namespace {

void append_prime_factors(std::int64_t n, std::vector<int>& out) {
    for (std::int64_t p = 2; p * p <= n; ++p) {
        for (; n % p == 0; n /= p) out.push_back(narrow<int>(p));
    }
    if (n > 1) out.push_back(narrow<int>(n));
}

}  // namespace

int ReductionTree::leaves() const {
    int product = 1;
    for (int radix : radices) product *= radix;
    return product;
}

std::vector<int> ReductionTree::tensor_degrees() const {
    std::vector<int> degrees{1};
    for (int radix : radices) degrees.push_back(degrees.back() * radix);
    return degrees;
}

Range ReductionTree::leaves_of(int degree, int rank) const {
    const int each = below(degree).leaves();
    return {std::int64_t{rank} * each, std::int64_t{rank + 1} * each};
}

ReductionTree ReductionTree::above(int degree) const {
    ReductionTree tree;
    int product = 1;
    for (int radix : radices) {
        if (product == degree) break;
        product *= radix;
        tree.radices.push_back(radix);
    }
    ensure(product == degree, "no prefix of the reduction list has product {}", degree);
    return tree;
}

ReductionTree ReductionTree::below(int degree) const {
    const std::size_t levels = above(degree).radices.size();
    return {{radices.begin() + static_cast<std::ptrdiff_t>(levels), radices.end()}};
}

ReductionTree reduction_tree(std::int64_t heads, std::int64_t kv_heads) {
    constexpr int kMaxLeaves = 15;
    std::vector<int> factors;
    append_prime_factors(kv_heads, factors);
    append_prime_factors(div_exact(heads, kv_heads), factors);
    ReductionTree tree;
    int product = 1;
    for (int factor : factors) {
        if (product * factor > kMaxLeaves) break;
        product *= factor;
        tree.radices.push_back(factor);
    }
    return tree;
}

Range leaf_range(std::int64_t size, int leaves, int leaf, std::int64_t unit) {
    const Range units = split(ceil_div(size, unit), leaves, leaf);
    return intersect(Range{units.begin * unit, units.end * unit}, Range{0, size});
}

std::vector<Range> leaf_ranges(std::int64_t size, int leaves, std::int64_t unit) {
    std::vector<Range> ranges;
    for (int leaf = 0; leaf < leaves; ++leaf)
        ranges.push_back(leaf_range(size, leaves, leaf, unit));
    return ranges;
}

Contraction Contraction::straight(std::int64_t size) {
    return {{}, {{Range{0, size}}}};
}

Contraction Contraction::of_leaves(const ReductionTree& tree, std::int64_t size,
                                   std::int64_t unit) {
    Contraction contraction{tree, {}};
    for (Range range : leaf_ranges(size, tree.leaves(), unit)) {
        contraction.leaves.emplace_back();
        if (!range.empty()) contraction.leaves.back().push_back(range);
    }
    return contraction;
}

std::int64_t Contraction::size() const {
    std::int64_t total = 0;
    for (const auto& leaf : leaves) {
        for (Range range : leaf) total += range.size();
    }
    return total;
}

}  // namespace rankwise
