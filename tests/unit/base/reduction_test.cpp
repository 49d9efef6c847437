#include "src/base/reduction.hpp"

#include <gtest/gtest.h>

namespace rankwise {
namespace {

using Radices = std::vector<int>;

TEST(ReductionTree, FollowsTheModelsHeads) {
    EXPECT_EQ(reduction_tree(32, 8).radices, (Radices{2, 2, 2}));
    EXPECT_EQ(reduction_tree(14, 2).radices, (Radices{2, 7}));
    EXPECT_EQ(reduction_tree(9, 3).radices, (Radices{3, 3}));
    EXPECT_EQ(reduction_tree(12, 2).radices, (Radices{2, 2, 3}));
    EXPECT_EQ(reduction_tree(128, 128).radices, (Radices{2, 2, 2}));
    EXPECT_EQ(reduction_tree(1, 1).radices, Radices{});
    EXPECT_EQ(reduction_tree(17, 17).radices, Radices{});  // 17 > 15: no prefix
}

TEST(ReductionTree, TensorDegreesAreProductsOfPrefixes) {
    EXPECT_EQ(reduction_tree(14, 2).tensor_degrees(), (Radices{1, 2, 14}));
    const ReductionTree tree = reduction_tree(12, 2);
    EXPECT_EQ(tree.above(4).radices, (Radices{2, 2}));
    EXPECT_EQ(tree.below(4).radices, (Radices{3}));
    EXPECT_EQ(tree.leaves_of(4, 3), (Range{9, 12}));
    EXPECT_THROW((void)tree.above(3), InternalError);
}

TEST(Leaves, CoverTheDimensionInUnitsAndMayBeUnevenOrEmpty) {
    EXPECT_EQ(leaf_ranges(80, 2), (std::vector<Range>{{0, 32}, {32, 80}}));
    EXPECT_EQ(leaf_ranges(172, 8).front(), (Range{0, 16}));
    EXPECT_EQ(leaf_ranges(172, 8).back(), (Range{144, 172}));
    const auto ranges = leaf_ranges(24, 4);
    EXPECT_EQ(ranges, (std::vector<Range>{{0, 0}, {0, 16}, {16, 16}, {16, 24}}));
    const Contraction contraction = Contraction::of_leaves(reduction_tree(4, 4), 24);
    EXPECT_TRUE(contraction.leaves[0].empty());
    EXPECT_EQ(contraction.size(), 24);
}

}  // namespace
}  // namespace rankwise
