// Rotary embedding on every device.
#include "kernels/rope.hpp"

#include <gtest/gtest.h>

#include "src/base/maths.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/op_test.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

class RopeTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, RopeTest, testing::ValuesIn(device_cases()), device_name);

constexpr std::int64_t kPositions = 50;

/// cos and sin of position * 10000^(-2 i / head_dim).
struct Tables {
    explicit Tables(std::int64_t head_dim) {
        for (std::int64_t p = 0; p < kPositions; ++p) {
            for (std::int64_t i = 0; i < head_dim / 2; ++i) {
                const double share = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
                const double angle = static_cast<double>(p) * maths::pow(10000.0, share);
                cosine.push_back(static_cast<float>(maths::cos(angle)));
                sine.push_back(static_cast<float>(maths::sin(angle)));
            }
        }
    }
    std::vector<float> cosine;
    std::vector<float> sine;
};

struct Shape {
    std::int64_t rows;
    std::int64_t heads;
    std::int64_t head_dim;
    std::int64_t stride;
};
const std::vector<Shape> kShapes = {
    {1, 1, 2, 2}, {7, 3, 20, 61}, {5, 2, 64, 128}, {400, 4, 24, 100}, {0, 2, 32, 64}};

std::vector<std::int32_t> positions_of(std::int64_t rows) {
    std::vector<std::int32_t> positions;
    for (std::int64_t t = 0; t < rows; ++t) {
        positions.push_back(static_cast<std::int32_t>((t * 13 + 5) % kPositions));
    }
    return positions;
}

std::vector<float> rotated(const Shape& s, std::vector<float> x, const Tables& tables, bool inverse,
                           kernels::RopePairs pairs) {
    const bool adjacent = pairs == kernels::RopePairs::adjacent;
    const auto positions = positions_of(s.rows);
    const std::int64_t half = s.head_dim / 2;
    for (std::int64_t t = 0; t < s.rows; ++t) {
        for (std::int64_t h = 0; h < s.heads; ++h) {
            for (std::int64_t i = 0; i < half; ++i) {
                const auto at = static_cast<std::size_t>(t * s.stride + h * s.head_dim +
                                                         (adjacent ? 2 * i : i));
                const auto pair = at + static_cast<std::size_t>(adjacent ? 1 : half);
                const auto entry =
                    static_cast<std::size_t>(positions[static_cast<std::size_t>(t)] * half + i);
                const float cosine = tables.cosine[entry];
                const float sine = inverse ? -tables.sine[entry] : tables.sine[entry];
                const float a = x[at];
                const float b = x[pair];
                x[at] = std::fma(a, cosine, -(b * sine));
                x[pair] = std::fma(b, cosine, a * sine);
            }
        }
    }
    return x;
}

TEST_P(RopeTest, EachPairIsRotatedByItsPositionsAngleInTheContractsSequence) {
    for (const Shape& s : kShapes) {
        for (const auto& [inverse, pairs] : {std::pair(false, kernels::RopePairs::halves),
                                             std::pair(true, kernels::RopePairs::halves),
                                             std::pair(false, kernels::RopePairs::adjacent),
                                             std::pair(true, kernels::RopePairs::adjacent)}) {
            const Tables tables(s.head_dim);
            const auto values = random_floats(s.rows * s.stride, 1);
            const auto x = device.put(values);
            const auto cosine = device.put(tables.cosine);
            const auto sine = device.put(tables.sine);
            const auto positions = positions_of(s.rows);
            device->rope({.x = matrix(x.span(), s.rows, s.heads * s.head_dim, s.stride),
                          .heads = s.heads,
                          .head_dim = s.head_dim,
                          .positions = positions,
                          .cosine = cosine.span(),
                          .sine = sine.span(),
                          .inverse = inverse,
                          .pairs = pairs},
                         device.stream());
            EXPECT_EQ(device.get(x), rotated(s, values, tables, inverse, pairs));
        }
    }
}

TEST_P(RopeTest, TheInverseIsTheTransposeOfTheRotation) {
    // The gradient of a rotation is its transpose: <R x, y> = <x, R^T y>.
    const Shape s{9, 2, 24, 48};
    const Tables tables(s.head_dim);
    const auto x_values = random_floats(s.rows * s.stride, 1);
    const auto y_values = random_floats(s.rows * s.stride, 2);
    const auto x = device.put(x_values);
    const auto y = device.put(y_values);
    const auto cosine = device.put(tables.cosine);
    const auto sine = device.put(tables.sine);
    const auto positions = positions_of(s.rows);
    kernels::RopeArgs args{.x = matrix(x.span(), s.rows, 48, 48),
                           .heads = 2,
                           .head_dim = 24,
                           .positions = positions,
                           .cosine = cosine.span(),
                           .sine = sine.span()};
    device->rope(args, device.stream());
    args.x = matrix(y.span(), s.rows, 48, 48);
    args.inverse = true;
    device->rope(args, device.stream());
    const auto rotated_x = device.get(x);
    const auto back_y = device.get(y);
    double forward = 0.0;
    double backward = 0.0;
    for (std::size_t i = 0; i < x_values.size(); ++i) {
        forward += static_cast<double>(rotated_x[i]) * static_cast<double>(y_values[i]);
        backward += static_cast<double>(x_values[i]) * static_cast<double>(back_y[i]);
    }
    EXPECT_NEAR(forward, backward, 432 * 4 * 0x1p-24);
}

TEST_P(RopeTest, WhatDoesNotFitIsRefusedByName) {
    const Tables tables(8);
    const auto x = device.make<float>(32);
    const auto cosine = device.put(tables.cosine);
    const std::vector<std::int32_t> good = {0, 49};
    const kernels::RopeArgs fits{.x = matrix(x.span(), 2, 16, 16),
                                 .heads = 2,
                                 .head_dim = 8,
                                 .positions = good,
                                 .cosine = cosine.span(),
                                 .sine = cosine.span()};
    auto& stream = device.stream();
    EXPECT_NO_THROW(device->rope(fits, stream));
    auto args = fits;
    const std::vector<std::int32_t> beyond = {0, 50};
    args.positions = beyond;
    EXPECT_THROW_WITH(device->rope(args, stream), InternalError, "position 50 of a table of 50");
    const std::vector<std::int32_t> before = {-1, 0};
    args.positions = before;
    EXPECT_THROW_WITH(device->rope(args, stream), InternalError, "position -1");
    args = fits;
    args.positions = std::span(good).first(1);
    EXPECT_THROW_WITH(device->rope(args, stream), InternalError, "positions has 1 elements");
    args = fits;
    args.head_dim = 7;
    EXPECT_THROW_WITH(device->rope(args, stream), InternalError, "heads of an even size");
    args = fits;
    args.heads = 3;
    EXPECT_THROW_WITH(device->rope(args, stream), InternalError, "x is 2 x 16, expected 2 x 24");
    args = fits;
    args.sine = args.sine.subspan(4);
    EXPECT_THROW_WITH(device->rope(args, stream), InternalError, "sine has 196");
    args = fits;
    args.cosine = args.cosine.subspan(1);
    EXPECT_THROW_WITH(device->rope(args, stream), InternalError, "199 cosines for heads of 8");
    args = fits;
    args.x.dtype = DType::f16;
    EXPECT_THROW_WITH(device->rope(args, stream), InternalError, "x is F16");
}

}  // namespace
}  // namespace rankwise::test
