// Intervals against values worked out by hand.
#include "src/stages/interval.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

namespace rankwise::stages {
namespace {

TEST(Interval, OfAMeanIsItsStandardErrorOverProblems) {
    // Means 0.5, 1, 0, 0.5: mean 0.5, squares 0 + 0.25 + 0.25 + 0, variance 0.5 / 3, error
    // sqrt(1/6 / 4) = 0.2041241452319315.
    const std::array<double, 4> means{0.5, 1.0, 0.0, 0.5};
    const std::array<double, 4> one{1.0, 1.0, 1.0, 1.0};
    const auto interval = ratio_interval(means, one);
    ASSERT_TRUE(interval);
    EXPECT_NEAR(interval->low, 0.5 - 1.96 * 0.2041241452319315, 1e-15);
    EXPECT_NEAR(interval->high, 0.5 + 1.96 * 0.2041241452319315, 1e-15);
    // k answers to each say the same.
    const std::array<double, 4> right{2.0, 4.0, 0.0, 2.0};
    const std::array<double, 4> four{4.0, 4.0, 4.0, 4.0};
    EXPECT_NEAR(ratio_interval(right, four)->low, interval->low, 1e-15);
}

TEST(Interval, OfARatioWeighsProblemsBySize) {
    // 1/2, 3/4, 0/2: ratio 4/8; off by 0, 1, -1; s = sqrt(3/2 * 2) / 8.
    const std::array<double, 3> values{1.0, 3.0, 0.0};
    const std::array<double, 3> sizes{2.0, 4.0, 2.0};
    const auto interval = ratio_interval(values, sizes);
    EXPECT_NEAR(interval->low, 0.5 - 1.96 * std::sqrt(3.0) / 8.0, 1e-15);
    EXPECT_NEAR(interval->high, 0.5 + 1.96 * std::sqrt(3.0) / 8.0, 1e-15);
}

TEST(Interval, DoesNotGoBelowZeroAndNeedsTwoProblems) {
    const std::array<double, 3> values{0.0, 0.0, 1.0};
    const std::array<double, 3> sizes{1.0, 1.0, 1.0};
    EXPECT_EQ(ratio_interval(values, sizes)->low, 0.0);
    EXPECT_FALSE(ratio_interval(std::span(values).first(1), std::span(sizes).first(1)));
    EXPECT_FALSE(ratio_interval({}, {}));
    const std::array<double, 3> nothing{};
    EXPECT_FALSE(ratio_interval(nothing, nothing));
}

TEST(Interval, OfASharesMeanStaysBelowOneAndHasWidthWhereAllAgree) {
    const std::array<double, 4> ones{1.0, 1.0, 1.0, 1.0};
    const std::array<double, 4> zeros{};
    const double edge = 1.96 * 1.96 / (4.0 + 1.96 * 1.96);
    EXPECT_NEAR(share_interval(zeros, ones)->high, edge, 1e-15);
    EXPECT_NEAR(share_interval(ones, ones)->low, 1.0 - edge, 1e-15);
    const std::array<double, 4> most{1.0, 1.0, 1.0, 0.5};
    EXPECT_EQ(share_interval(most, ones)->high, 1.0);
    EXPECT_EQ(share_interval(most, ones)->low, ratio_interval(most, ones)->low);
    const std::array<double, 4> halves{0.5, 0.5, 0.5, 0.5};
    EXPECT_EQ(share_interval(halves, ones)->low, 0.5);
    EXPECT_FALSE(share_interval(zeros, zeros));
}

TEST(Interval, OfAShareIsWilsons) {
    // 81 of 263 (Newcombe 1998, table I): 0.2553 to 0.3662.
    EXPECT_NEAR(wilson_interval(81.0 / 263.0, 263.0)->low, 0.2553, 5e-5);
    EXPECT_NEAR(wilson_interval(81.0 / 263.0, 263.0)->high, 0.3662, 5e-5);
    // 0 of 20: 0 to z^2 / (n + z^2); 20 of 20 mirrors it.
    const double edge = 1.96 * 1.96 / (20.0 + 1.96 * 1.96);
    EXPECT_NEAR(wilson_interval(0.0, 20.0)->low, 0.0, 1e-15);
    EXPECT_NEAR(wilson_interval(0.0, 20.0)->high, edge, 1e-15);
    EXPECT_NEAR(wilson_interval(1.0, 20.0)->low, 1.0 - edge, 1e-15);
    EXPECT_NEAR(wilson_interval(1.0, 20.0)->high, 1.0, 1e-15);
    EXPECT_FALSE(wilson_interval(0.0, 0.0));
}

}  // namespace
}  // namespace rankwise::stages
