// Exact sums of doubles.
#include "src/base/exact_sum.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "src/base/error.hpp"
#include "src/base/philox.hpp"
#include "tests/support/throws.hpp"

namespace rankwise {
namespace {

double exact_sum(std::vector<double> values, double max) {
    const int exponent = scale_exponent(max);
    UInt128 sum;
    for (double value : values) sum += to_fixed(value, exponent);
    return from_fixed(sum, exponent);
}

TEST(ExactSum, TheScaleBringsTheLargestJustBelowTwoToThe80) {
    EXPECT_EQ(scale_exponent(1.0), 79);
    EXPECT_EQ(scale_exponent(1.999), 79);
    EXPECT_EQ(scale_exponent(2.0), 78);
    EXPECT_EQ(scale_exponent(0.0), 0);
    for (double max : {1e-300, 3e-17, 1.0, 7e200}) {
        const double scaled = std::ldexp(max, scale_exponent(max));
        EXPECT_GE(scaled, 0x1p79);
        EXPECT_LT(scaled, 0x1p80);
    }
}

TEST(ExactSum, ANumberNearTheLargestGoesThereAndBackUnchanged) {
    RandomSequence random(RandomStream(1, Purpose::data_generation));
    for (int i = 0; i < 1000; ++i) {
        const double max =
            std::ldexp(1.0 + random.uniform(), static_cast<int>(random.below(600)) - 300);
        // 80 - 53 = 27 bits may go before a number loses any of its own.
        const double value =
            std::ldexp(max * random.uniform(), -static_cast<int>(random.below(26)));
        const int exponent = scale_exponent(max);
        const double back = from_fixed(to_fixed(value, exponent), exponent);
        EXPECT_NEAR(back, value, std::ldexp(0.5, -exponent));
        if (value >= std::ldexp(max, -26)) {
            EXPECT_EQ(back, value);
        }
    }
}

TEST(ExactSum, WhatIsFarBelowTheLargestRoundsToTheNearestIntegerTiesToEven) {
    const int exponent = scale_exponent(1.0);  // 79
    EXPECT_EQ(to_fixed(std::ldexp(1.0, -79), exponent), (UInt128{1, 0}));
    EXPECT_EQ(to_fixed(std::ldexp(0.5, -79), exponent), (UInt128{0, 0}));
    EXPECT_EQ(to_fixed(std::ldexp(0.75, -79), exponent), (UInt128{1, 0}));
    EXPECT_EQ(to_fixed(std::ldexp(1.5, -79), exponent), (UInt128{2, 0}));
    EXPECT_EQ(to_fixed(std::ldexp(2.5, -79), exponent), (UInt128{2, 0}));
    EXPECT_EQ(to_fixed(std::ldexp(1.0, -300), exponent), (UInt128{0, 0}));
    EXPECT_EQ(to_fixed(1.0, exponent), (UInt128{0, std::uint64_t{1} << 15U}));
}

TEST(ExactSum, TheSumDoesNotDependOnOrderAndIsTheRoundedExactOne) {
    RandomSequence random(RandomStream(2, Purpose::data_generation));
    std::vector<double> values;
    double max = 0.0;
    long double exact = 0.0L;
    for (int i = 0; i < 5000; ++i) {
        const double value = std::ldexp(random.uniform(), -static_cast<int>(random.below(10)));
        values.push_back(value);
        max = std::max(max, value);
        exact += static_cast<long double>(value);
    }
    const double sum = exact_sum(values, max);
    EXPECT_NEAR(sum, static_cast<double>(exact), 1e-12);
    for (int round = 0; round < 5; ++round) {
        random.shuffle(values);
        EXPECT_EQ(exact_sum(values, max), sum);
    }
    EXPECT_EQ(exact_sum({1.0, 0x1p-53, 0x1p-60}, 1.0), 1.0 + 0x1p-52);  // just above a tie
    EXPECT_EQ(exact_sum({1.0, 0x1p-53}, 1.0), 1.0);                     // the tie itself
    EXPECT_EQ(exact_sum({}, 0.0), 0.0);
}

TEST(ExactSum, MillionsOfTheLargestDoNotOverflow) {
    const int exponent = scale_exponent(1.75);
    const UInt128 one = to_fixed(1.75, exponent);
    UInt128 sum = one;
    for (int i = 0; i < 40; ++i) sum += sum;
    EXPECT_EQ(from_fixed(sum, exponent), std::ldexp(1.75, 40));
}

TEST(ExactSum, NumbersThatAreNoSumsOfSquaresAreBadNumbers) {
    const double nan = std::nan("");
    const double infinity = std::numeric_limits<double>::infinity();
    for (double value : {nan, infinity, -1.0}) {
        EXPECT_THROW_WITH(static_cast<void>(scale_exponent(value)), BadNumbers,
                          "finite and not negative");
        EXPECT_THROW_WITH(static_cast<void>(to_fixed(value, 0)), BadNumbers,
                          "finite and not negative");
    }
    EXPECT_THROW_WITH(static_cast<void>(to_fixed(2.0, scale_exponent(1.0))), BadNumbers,
                      "larger than the largest");
}

}  // namespace
}  // namespace rankwise
