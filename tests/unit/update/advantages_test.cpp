#include "src/update/advantages.hpp"

#include <gtest/gtest.h>

#include "src/base/error.hpp"

namespace rankwise::update {
namespace {

TEST(Advantages, EqualRewardsGiveExactlyZeroAndAreCounted) {
    const std::vector<double> rewards{0.1, 0.1, 0.1, 1.0, 0.0, 1.0};
    const Advantages got = group_advantages(rewards, 3, RewardScaling::group);
    EXPECT_EQ(got.equal_groups, 1);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(got.values[i], 0.0);
    EXPECT_GT(got.values[3], 0.0);
    EXPECT_LT(got.values[4], 0.0);
}

TEST(Advantages, AGroupOfOneIsRefused) {
    const std::vector<double> rewards{1.0};
    EXPECT_THROW((void)group_advantages(rewards, 1, RewardScaling::group), InternalError);
}

}  // namespace
}  // namespace rankwise::update
