// What vdpbf16ps does on this machine, against the sequence that NUMERICS N1 is built on.
#include "tests/kernels/matmul/pair_product.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/cpu/thread_team.hpp"
#include "kernels/device.hpp"
#include "src/base/dtype.hpp"
#include "src/base/philox.hpp"
#include "tests/support/reference_bf16.hpp"

namespace rankwise::test {
namespace {

class PairProductTest : public testing::Test {
  protected:
    void SetUp() override {
        if (kernels::available_isas().back() != kernels::Isa::avx512_bf16) {
            GTEST_SKIP() << "this machine has no avx512_bf16";
        }
    }

    std::uint32_t word() { return random_(); }
    /// Random sign and mantissa, the (biased) exponent in [low, high).
    Bf16 element(std::uint32_t low, std::uint32_t high) {
        return static_cast<Bf16>((word() & 0x807FU) | (low + word() % (high - low)) << 7U);
    }
    float sum(std::uint32_t low, std::uint32_t high) {
        return std::bit_cast<float>((word() & 0x807FFFFFU) | (low + word() % (high - low)) << 23U);
    }

    /// The processor, which flushes denormals by itself, against N1's sequence; a NaN equals any
    /// NaN.
    void compare(const std::function<Bf16()>& element, const std::function<float()>& sum) {
        for (int i = 0; i < 20'000; ++i) {
            std::array<float, 16> sums{};
            std::array<Bf16, 32> a{};
            std::array<Bf16, 32> b{};
            std::array<float, 16> processor{};
            for (float& each : sums) each = sum();
            for (Bf16& each : a) each = element();
            for (Bf16& each : b) each = element();
            pair_product_of_the_processor(sums.data(), a.data(), b.data(), processor.data());
            const kernels::cpu::FlushDenormals flush;
            for (std::size_t lane = 0; lane < 16; ++lane) {
                const float a0 = float_from_bf16(a[2 * lane]);
                const float a1 = float_from_bf16(a[2 * lane + 1]);
                const float b0 = float_from_bf16(b[2 * lane]);
                const float b1 = float_from_bf16(b[2 * lane + 1]);
                const float expected = reference_pair(a0, b0, a1, b1, sums[lane]);
                const float found = processor[lane];
                if (std::isnan(expected) && std::isnan(found)) continue;
                ASSERT_EQ(std::bit_cast<std::uint32_t>(found),
                          std::bit_cast<std::uint32_t>(expected))
                    << std::hexfloat << sums[lane] << " + " << a1 << " * " << b1 << " + " << a0
                    << " * " << b0;
            }
        }
    }

  private:
    RandomSequence random_{RandomStream(1, Purpose::data_generation)};
};

TEST_F(PairProductTest, OrdinaryOperandsAreAddedOneAfterTheOtherTheSecondFirst) {
    compare([&] { return element(110, 140); }, [&] { return sum(100, 150); });
    compare([&] { return element(120, 130); }, [] { return 0.0F; });
}

TEST_F(PairProductTest, AnyBitsAtAll) {
    compare([&] { return static_cast<Bf16>(word()); },
            [&] { return std::bit_cast<float>(word()); });
}

TEST_F(PairProductTest, DenormalOperandsAreZeros) {
    compare([&] { return word() % 2 == 0 ? element(0, 1) : element(120, 254); },
            [&] { return word() % 2 == 0 ? sum(0, 1) : sum(1, 30); });
}

TEST_F(PairProductTest, ResultsNearTheSmallestNormalAreFlushedAfterRounding) {
    compare([&] { return element(56, 70); }, [&] { return sum(0, 30); });
    compare([&] { return element(60, 65); }, [] { return 0.0F; });
}

TEST_F(PairProductTest, ProductsBeyondTheLargestFloatAreNotRoundedBeforeTheyAreAdded) {
    compare([&] { return element(187, 195); }, [&] { return sum(240, 255); });
}

TEST_F(PairProductTest, ZerosInfinitiesAndNansMeetEachOther) {
    const std::vector<Bf16> values{0x0000, 0x8000, 0x0001, 0x8001, 0x0080, 0x8080, 0x3F80,
                                   0xBF80, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0x7F81};
    const auto any = [&] { return values[word() % values.size()]; };
    compare(any, [&] { return float_from_bf16(any()); });
}

TEST_F(PairProductTest, RoundingToBf16IsToNearestEvenAndFlushesDenormals) {
    for (int i = 0; i < 20'000; ++i) {
        std::array<float, 16> values{};
        for (float& each : values) {
            each = std::bit_cast<float>(word());
            if (i % 2 != 0) {  // a tie, or next to one
                each = std::bit_cast<float>((std::bit_cast<std::uint32_t>(each) & 0xFFFF0000U) |
                                            (0x7FFFU + word() % 3));
            }
        }
        std::array<Bf16, 16> processor{};
        rounded_by_the_processor(values.data(), processor.data());
        for (std::size_t lane = 0; lane < 16; ++lane) {
            const float value = std::fpclassify(values[lane]) == FP_SUBNORMAL
                                    ? std::copysign(0.0F, values[lane])
                                    : values[lane];
            ASSERT_EQ(processor[lane], bf16_from_float(value)) << std::hexfloat << values[lane];
        }
    }
}

}  // namespace
}  // namespace rankwise::test
