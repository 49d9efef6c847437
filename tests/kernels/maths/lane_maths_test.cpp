// The sixteen lanes and their elementary functions: error against double, limits, equal bits on
// every instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cpu/maths_kernels.hpp"
#include "kernels/cpu/thread_team.hpp"
#include "kernels/device.hpp"
#include "src/base/maths.hpp"
#include "src/base/philox.hpp"

namespace rankwise::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const cpu::MathsKernels& maths_kernels(Isa isa) {
    return isa != Isa::avx2 ? cpu::avx512::maths_kernels() : cpu::avx2::maths_kernels();
}

class LaneMaths : public testing::TestWithParam<Isa> {
  protected:
    const cpu::MathsKernels& kernels = maths_kernels(GetParam());

    using Function = void (*)(const float*, float*, std::int64_t);
    static std::vector<float> apply(Function function, const std::vector<float>& x) {
        std::vector<float> y(x.size());
        function(x.data(), y.data(), static_cast<std::int64_t>(x.size()));
        return y;
    }
};

INSTANTIATE_TEST_SUITE_P(Isas, LaneMaths, testing::ValuesIn(available_isas()),
                         [](const auto& isa) { return std::string(name_of(isa.param)); });

/// Error of `value` in units of the last place of a float of the size of `exact`.
double ulps(float value, double exact) {
    int exponent = 0;
    std::frexp(static_cast<float>(exact), &exponent);
    return std::abs(value - exact) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

/// Every `step`-th float between two of the same sign, in the order of their bits.
std::vector<float> floats_between(float first, float last, std::uint32_t step) {
    std::vector<float> values;
    const auto end = std::bit_cast<std::uint32_t>(last);
    for (std::uint64_t bits = std::bit_cast<std::uint32_t>(first); bits <= end; bits += step) {
        values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    }
    return values;
}

TEST_P(LaneMaths, ExpIsWithinOneUnitOfTheLastPlaceOverItsRange) {
    for (float sign : {1.0F, -1.0F}) {
        const auto x = floats_between(sign * 0x1p-40F, sign * 87.3F, 331);
        const auto y = apply(kernels.exp, x);
        double worst = 0.0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            worst = std::max(worst, ulps(y[i], std::exp(static_cast<double>(x[i]))));
        }
        EXPECT_LT(worst, 1.0);
    }
}

TEST_P(LaneMaths, ExpHasItsLimits) {
    const std::vector<float> x = {0.0F,   -0.0F, -kInfinity, kInfinity, kNan,
                                  -1e30F, 1e30F, -87.34F,    -104.0F,   -700.0F,
                                  88.73F, -kNan, 0x1p-149F,  -0x1p-126F};
    const auto y = apply(kernels.exp, x);
    EXPECT_EQ(y[0], 1.0F);
    EXPECT_EQ(y[1], 1.0F);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(y[2]), 0U);
    EXPECT_EQ(y[3], kInfinity);
    EXPECT_TRUE(std::isnan(y[4]));
    EXPECT_EQ(y[5], 0.0F);
    EXPECT_EQ(y[6], kInfinity);
    EXPECT_EQ(y[7], 0.0F);
    EXPECT_EQ(y[8], 0.0F);
    EXPECT_EQ(y[9], 0.0F);
    EXPECT_EQ(y[10], kInfinity);
    EXPECT_TRUE(std::isnan(y[11]));
    EXPECT_EQ(y[12], 1.0F);
    EXPECT_EQ(y[13], 1.0F);
}

TEST_P(LaneMaths, ExpMeetsBothEndsOfTheNormalRange) {
    const float lowest = -0x1.5d589ep+6F;  // the last whose e^x is a normal number
    const float highest = 0x1.62e42ep+6F;  // the last whose e^x is finite
    const auto y = apply(kernels.exp, {lowest, std::nextafter(lowest, -100.0F), highest,
                                       std::nextafter(highest, 100.0F)});
    EXPECT_LT(ulps(y[0], std::exp(static_cast<double>(lowest))), 1.0);
    EXPECT_GE(y[0], std::numeric_limits<float>::min());
    EXPECT_EQ(y[1], 0.0F);
    EXPECT_LT(ulps(y[2], std::exp(static_cast<double>(highest))), 1.0);
    EXPECT_EQ(y[3], kInfinity);
}

TEST_P(LaneMaths, LogIsWithinOneUnitOfTheLastPlaceOverItsRange) {
    auto x =
        floats_between(std::numeric_limits<float>::min(), std::numeric_limits<float>::max(), 977);
    const auto near_one = floats_between(0.9F, 1.1F, 3);
    x.insert(x.end(), near_one.begin(), near_one.end());
    const auto y = apply(kernels.log, x);
    double worst = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        worst = std::max(worst, ulps(y[i], std::log(static_cast<double>(x[i]))));
    }
    EXPECT_LT(worst, 1.0);
}

TEST_P(LaneMaths, GumbelNoiseIsFiniteAtBothEndsOfTheUniformNumbers) {
    const auto inner = apply(kernels.log, {uniform_open(0U), uniform_open(0xFFFFFFFFU)});
    const auto outer = apply(kernels.log, {-inner[0], -inner[1]});
    EXPECT_NEAR(-outer[0], -std::log(24.0 * std::log(2.0)), 1e-6);
    EXPECT_NEAR(-outer[1], 24.0 * std::log(2.0), 1e-5);
}

TEST_P(LaneMaths, BitsAreThoseOfTheFirstInstructionSetWithDenormalsFlushedOrNot) {
    const auto& first = maths_kernels(available_isas().front());
    RandomSequence random(RandomStream(3, Purpose::data_generation));
    std::vector<float> x(100003);
    for (float& value : x) value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    const auto bits = [](const std::vector<float>& values) {
        std::vector<std::uint32_t> result;
        for (float value : values) {
            // Which of the NaNs comes out is no promise.
            result.push_back(std::isnan(value) ? 0x7FC00000U : std::bit_cast<std::uint32_t>(value));
        }
        return result;
    };
    const auto expected = bits(apply(first.exp, x));
    EXPECT_EQ(bits(apply(kernels.exp, x)), expected);
    {
        const cpu::FlushDenormals flush;
        EXPECT_EQ(bits(apply(kernels.exp, x)), expected);
    }
    std::erase_if(x, [](float value) { return !std::isnormal(value) || value < 0.0F; });
    const auto expected_log = bits(apply(first.log, x));
    EXPECT_EQ(bits(apply(kernels.log, x)), expected_log);
    const cpu::FlushDenormals flush;
    EXPECT_EQ(bits(apply(kernels.log, x)), expected_log);
}

TEST_P(LaneMaths, ExpOfDoubleHasTheBitsOfTheHostsWhereItIsNormal) {
    RandomSequence random(RandomStream(5, Purpose::data_generation));
    for (const std::int64_t count : {0, 1, 15, 16, 17, 20011}) {
        std::vector<double> x(static_cast<std::size_t>(count));
        for (double& value : x) value = 1417.0 * random.uniform() - 708.0;
        std::vector<double> y(x);
        kernels.exp_double(y.data(), y.data(), count);
        for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], maths::exp(x[i])) << x[i];
    }
    std::vector<double> edges = {0.0, -708.1, -1e300, -std::numeric_limits<double>::infinity()};
    kernels.exp_double(edges.data(), edges.data(), 4);
    EXPECT_EQ(edges, (std::vector<double>{1.0, 0.0, 0.0, 0.0}));
}

TEST_P(LaneMaths, LanesAreSummedByHalves) {
    RandomSequence random(RandomStream(4, Purpose::data_generation));
    for (int round = 0; round < 100; ++round) {
        std::vector<float> lanes(16);
        for (float& lane : lanes) lane = static_cast<float>(random.uniform() - 0.5) * 1e3F;
        std::vector<float> single(lanes);
        std::vector<double> wide(lanes.begin(), lanes.end());
        for (std::size_t step = 8; step > 0; step /= 2) {
            for (std::size_t i = 0; i < step; ++i) {
                single[i] = single[i] + single[i + step];
                wide[i] = wide[i] + wide[i + step];
            }
        }
        EXPECT_EQ(kernels.sum(lanes.data()), single[0]);
        EXPECT_EQ(kernels.sum_double(lanes.data()), wide[0]);
        EXPECT_EQ(kernels.max_lane(lanes.data()), *std::ranges::max_element(lanes));
    }
}

TEST_P(LaneMaths, APartialLoadAndStoreTouchOnlyTheirLanes) {
    for (std::int64_t count = 0; count <= 16; ++count) {
        const std::vector<float> from(static_cast<std::size_t>(count), 2.0F);
        std::vector<float> to(17, -1.0F);
        kernels.copy(from.data(), to.data(), count);
        EXPECT_EQ(std::ranges::count(to, 2.0F), count);
        EXPECT_EQ(std::ranges::count(to, -1.0F), 17 - count);
    }
}

}  // namespace
}  // namespace rankwise::kernels
