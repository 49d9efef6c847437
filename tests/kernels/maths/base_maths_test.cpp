// The host's double functions against long double libm, in units of the last place.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/base/error.hpp"
#include "src/base/maths.hpp"
#include "src/base/philox.hpp"

namespace rankwise {
namespace {

/// |value - exact| in units of the last place of `exact` as a double.
double ulps(double value, long double exact) {
    const auto rounded = static_cast<double>(exact);
    int exponent = 0;
    std::frexp(rounded, &exponent);
    const int place = std::max(exponent - 53, -1074);
    return static_cast<double>(std::abs(static_cast<long double>(value) - exact) /
                               std::ldexp(1.0L, place));
}

/// The worst error of `ours` against `exact` over `count` points that `draw` gives for a uniform
/// number in (0, 1).
template <class Ours, class Exact, class Draw>
double worst(Ours ours, Exact exact, Draw draw, int count = 200000) {
    RandomSequence random(RandomStream(1, Purpose::data_generation));
    double result = 0.0;
    for (int i = 0; i < count; ++i) {
        const double x = draw(random.uniform());
        result = std::max(result, ulps(ours(x), exact(static_cast<long double>(x))));
    }
    return result;
}

TEST(BaseMaths, ExpIsWithinOneUnitOfTheLastPlace) {
    const auto exact = [](long double x) { return std::exp(x); };
    EXPECT_LT(worst(maths::exp, exact, [](double u) { return 1417.0 * u - 708.0; }), 1.0);
    EXPECT_LT(worst(maths::exp, exact, [](double u) { return 2.0 * u - 1.0; }), 1.0);
    EXPECT_LT(worst(maths::exp, exact, [](double u) { return 1e-5 * (u - 0.5); }), 1.0);
}

TEST(BaseMaths, ExpUnderflowsGraduallyAndKeepsItsLimits) {
    const auto exact = [](long double x) { return std::exp(x); };
    EXPECT_LE(worst(maths::exp, exact, [](double u) { return -708.0 - 38.0 * u; }), 1.0);
    EXPECT_EQ(maths::exp(0.0), 1.0);
    EXPECT_EQ(maths::exp(-std::numeric_limits<double>::infinity()), 0.0);
    EXPECT_EQ(maths::exp(std::numeric_limits<double>::infinity()),
              std::numeric_limits<double>::infinity());
    EXPECT_EQ(maths::exp(709.8), std::numeric_limits<double>::infinity());
    EXPECT_LT(maths::exp(709.78), std::numeric_limits<double>::infinity());
    EXPECT_TRUE(std::isnan(maths::exp(std::nan(""))));
}

TEST(BaseMaths, LogIsWithinOneUnitOfTheLastPlace) {
    const auto exact = [](long double x) { return std::log(x); };
    EXPECT_LT(worst(maths::log, exact, [](double u) { return u; }), 1.0);
    EXPECT_LT(worst(maths::log, exact, [](double u) { return 1.0 + 0.01 * (u - 0.5); }), 1.0);
    EXPECT_LT(worst(maths::log, exact, [](double u) { return 1e5 * u; }), 1.0);
    EXPECT_LT(worst(maths::log, exact, [](double u) { return 1e-310 * u; }), 1.0);
    EXPECT_LT(worst(maths::log, exact, [](double u) { return 1e300 * u; }), 1.0);
}

TEST(BaseMaths, LogKeepsItsLimits) {
    EXPECT_EQ(maths::log(1.0), 0.0);
    EXPECT_EQ(maths::log(0.0), -std::numeric_limits<double>::infinity());
    EXPECT_EQ(maths::log(std::numeric_limits<double>::infinity()),
              std::numeric_limits<double>::infinity());
    EXPECT_TRUE(std::isnan(maths::log(-1.0)));
    EXPECT_TRUE(std::isnan(maths::log(std::nan(""))));
}

TEST(BaseMaths, SineAndCosineAreWithinOneUnitUpToAMillion) {
    const auto sine = [](long double x) { return std::sin(x); };
    const auto cosine = [](long double x) { return std::cos(x); };
    for (const double range : {1e-3, 1.0, 10.0, 1e3, 1e6}) {
        const auto draw = [range](double u) { return range * (2.0 * u - 1.0); };
        EXPECT_LT(worst(maths::sin, sine, draw), 1.0) << range;
        EXPECT_LT(worst(maths::cos, cosine, draw), 1.0) << range;
    }
}

TEST(BaseMaths, SineAndCosineHoldNextToMultiplesOfHalfPi) {
    for (int n = 1; n < 700000; n += 37) {
        const double x = n * 0x1.921fb54442d18p+0;
        EXPECT_LT(ulps(maths::sin(x), std::sin(static_cast<long double>(x))), 1.0) << x;
        EXPECT_LT(ulps(maths::cos(x), std::cos(static_cast<long double>(x))), 1.0) << x;
    }
}

TEST(BaseMaths, AnAngleBeyondTheReductionIsAnError) {
    EXPECT_THROW(static_cast<void>(maths::sin(0x1.1p30)), InternalError);
    EXPECT_THROW(static_cast<void>(maths::cos(std::nan(""))), InternalError);
}

TEST(BaseMaths, PowIsWithinOneUnitOfTheLastPlace) {
    for (const double base : {1e4, 5e5, 1e6, 0.9, 0.95, 0.999, 1.0000001, 2.0, 10.0, 1e-300}) {
        for (const double range : {1.0, 30.0, 400.0}) {
            const auto exact = [base](long double y) {
                return std::pow(static_cast<long double>(base), y);
            };
            const double limit = 708.0 / std::abs(std::log(base));
            const double reach = std::min(range, limit);
            EXPECT_LT(worst([base](double y) { return maths::pow(base, y); }, exact,
                            [reach](double u) { return reach * (2.0 * u - 1.0); }, 5000),
                      1.0)
                << base << " " << range;
        }
    }
}

TEST(BaseMaths, PowHasItsExactCasesAndRefusesOthers) {
    EXPECT_EQ(maths::pow(10.0, 3.0), 1000.0);
    EXPECT_EQ(maths::pow(7.0, 0.0), 1.0);
    EXPECT_EQ(maths::pow(0.0, 2.5), 0.0);
    EXPECT_EQ(maths::pow(2.0, 4000.0), std::numeric_limits<double>::infinity());
    EXPECT_EQ(maths::pow(2.0, -4000.0), 0.0);
    EXPECT_THROW(static_cast<void>(maths::pow(-2.0, 2.0)), InternalError);
    EXPECT_THROW(static_cast<void>(maths::pow(0.0, -1.0)), InternalError);
    EXPECT_THROW(static_cast<void>(maths::pow(2.0, std::nan(""))), InternalError);
}

}  // namespace
}  // namespace rankwise
