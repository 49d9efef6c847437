#include "src/base/dtype.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "src/base/error.hpp"

namespace rankwise {
namespace {

TEST(DType, NamesRoundTripAndUnknownOnesAreRefused) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f8_e4m3, DType::f64,
                              DType::i32, DType::i64, DType::u8}) {
        EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
    }
    EXPECT_THROW((void)dtype_from_name("F33"), BadInput);
}

TEST(DType, BfloatRoundsToNearestEven) {
    EXPECT_EQ(bf16_from_float(1.0F), 0x3F80);
    EXPECT_EQ(bf16_from_float(1.0F + 0x1p-8F), 0x3F80);            // a tie goes to the even side
    EXPECT_EQ(bf16_from_float(1.0F + 0x1p-7F + 0x1p-8F), 0x3F82);  // and so does this one
    EXPECT_EQ(float_from_bf16(0x3F80), 1.0F);
    EXPECT_TRUE(
        std::isnan(float_from_bf16(bf16_from_float(std::numeric_limits<float>::quiet_NaN()))));
    EXPECT_EQ(float_from_bf16(bf16_from_float(std::numeric_limits<float>::infinity())),
              std::numeric_limits<float>::infinity());
}

TEST(DType, HalfPrecisionIsExact) {
    EXPECT_EQ(float_from_f16(0x3C00), 1.0F);
    EXPECT_EQ(float_from_f16(0x0001), 0x1p-24F);
    EXPECT_EQ(float_from_f16(0xC000), -2.0F);
    EXPECT_TRUE(std::isinf(float_from_f16(0x7C00)));
}

}  // namespace
}  // namespace rankwise
