// AdamW, row norms and digests on every device.
#include "kernels/optimizer.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/devices.hpp"
#include "tests/support/reference_optimizer.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

class OptimizerTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, OptimizerTest, testing::ValuesIn(device_cases()), device_name);

TEST_P(OptimizerTest, AdamwIsTheContractsSequenceAndFollowsTheAlgorithmInDouble) {
    for (const std::int64_t size : {0, 1, 15, 16, 1030, 70001}) {
        const auto count = static_cast<std::size_t>(size);
        auto parameter = random_floats(size, 1);
        std::vector<float> m(count, 0.0F);
        std::vector<float> v(count, 0.0F);
        const auto device_parameter = device.put(parameter);
        const auto device_m = device.put(m);
        const auto device_v = device.put(v);
        std::vector<AdamwState<double>> exact;
        for (float p : parameter) exact.push_back({static_cast<double>(p), 0.0, 0.0});
        for (int step = 1; step <= 3; ++step) {
            const auto grad = random_floats(size, 10 + static_cast<std::uint64_t>(step), 0.3F);
            const auto device_grad = device.put(grad);
            const kernels::AdamwArgs args{
                .parameter = device_parameter.span(),
                .grad = device_grad.span(),
                .m = device_m.span(),
                .v = device_v.span(),
                .lr = 1e-2F,
                .beta1 = 0.9,
                .beta2 = 0.95,
                .eps = 1e-8F,
                .weight_decay = 0.1F,
                .correction1 = static_cast<float>(1.0 - std::pow(0.9, step)),
                .correction2 = static_cast<float>(1.0 - std::pow(0.95, step)),
                .grad_scale = 0.25F};
            device->adamw(args, device.stream());
            for (std::size_t i = 0; i < count; ++i) {
                AdamwState<float> state{parameter[i], m[i], v[i]};
                reference_adamw(args, grad[i], state);
                parameter[i] = state.parameter;
                m[i] = state.m;
                v[i] = state.v;
                double_adamw(0.01, 0.9, 0.95, 1e-8, 0.1, step, 0.25 * static_cast<double>(grad[i]),
                             exact[i]);
            }
        }
        const auto got = device.get(device_parameter);
        EXPECT_EQ(got, parameter);
        EXPECT_EQ(device.get(device_m), m);
        EXPECT_EQ(device.get(device_v), v);
        for (std::size_t i = 0; i < count; ++i) {
            // Three roundings of a parameter below 1.1 and of steps of about 0.01, relative error
            // of some 2^-20.
            EXPECT_NEAR(got[i], exact[i].parameter, 3 * 0x1p-24 + 3 * 0.02 * 0x1p-20);
        }
    }
}

TEST_P(OptimizerTest, SquaredRowSumsAreInDoubleBySixteenLanesOfThePiece) {
    for (const std::int64_t rows : {0, 1, 5, 300}) {
        const std::int64_t cols = 120;
        const auto values = random_floats(rows * 123, 1);
        const auto x = device.put(values);
        const std::vector<Range> pieces = {{0, 48}, {48, 48}, {48, 107}, {107, 120}};
        std::vector<double> expected;
        for (std::int64_t r = 0; r < rows; ++r) {
            for (Range piece : pieces) {
                LaneSum<double> sum;
                for (std::int64_t c = piece.begin; c < piece.end; ++c) {
                    const double value = values[static_cast<std::size_t>(r * 123 + c)];
                    sum.add(c - piece.begin, value, value);
                }
                expected.push_back(sum.total());
            }
        }
        std::vector<double> sums(expected.size(), -1.0);
        device->squared_row_sums(
            {.x = matrix(x.span(), rows, cols, 123), .pieces = pieces, .sums = sums},
            device.stream());
        EXPECT_EQ(sums, expected);
    }
}

/// The digest of some rows as it is defined, with one hash a unit.
UInt128 reference_digest(const std::vector<float>& values, std::int64_t stride, Range rows,
                         std::int64_t first_row, std::int64_t first_column,
                         const std::vector<Range>& pieces, std::string_view name) {
    UInt128 total;
    const std::uint64_t name_hash = xxh3_128(name.data(), name.size()).low;
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
        for (Range piece : pieces) {
            if (piece.empty()) continue;
            std::int64_t place[2] = {first_row + r, first_column + piece.begin};
            const std::uint64_t seed = xxh3_128(place, 16, name_hash).low;
            total += xxh3_128(values.data() + r * stride + piece.begin,
                              static_cast<std::uint64_t>(piece.size()) * 4, seed);
        }
    }
    return total;
}

TEST_P(OptimizerTest, ADigestIsTheSumOfItsUnitsHashes) {
    const auto values = random_floats(300 * 70, 1);
    const auto x = device.put(values);
    const std::vector<Range> pieces = {{0, 32}, {32, 32}, {32, 66}};
    const UInt128 got = device->digest({.x = matrix(x.span(), 300, 66, 70),
                                        .name = "model.norm.weight",
                                        .first_row = 1000,
                                        .first_column = 64,
                                        .pieces = pieces},
                                       device.stream());
    EXPECT_EQ(to_hex(got), to_hex(reference_digest(values, 70, {0, 300}, 1000, 64, pieces,
                                                   "model.norm.weight")));
}

TEST_P(OptimizerTest, ADigestIsTheSameHoweverRowsAndPiecesAreDealt) {
    const auto values = random_floats(40 * 64, 1);
    const auto x = device.put(values);
    const auto all = matrix(x.span(), 40, 64, 64);
    const std::vector<Range> two = {{0, 32}, {32, 64}};
    const std::vector<Range> one = {{0, 32}};
    auto& stream = device.stream();
    const UInt128 whole = device->digest({.x = all, .name = "w", .pieces = two}, stream);
    UInt128 parts;
    for (const Range rows : {Range{0, 1}, Range{1, 29}, Range{29, 29}, Range{29, 40}}) {
        for (const std::int64_t column : {0, 32}) {
            parts += device->digest({.x = all.row_range(rows).col_range({column, column + 32}),
                                     .name = "w",
                                     .first_row = rows.begin,
                                     .first_column = column,
                                     .pieces = one},
                                    stream);
        }
    }
    EXPECT_EQ(parts, whole);
}

TEST_P(OptimizerTest, ADigestSeesTheNameThePlaceAndEveryBit) {
    auto values = random_floats(4 * 16, 1);
    const std::vector<Range> pieces = {{0, 16}};
    auto& stream = device.stream();
    const auto digest = [&](std::string_view name, std::int64_t row, std::int64_t column) {
        const auto x = device.put(values);
        return device->digest({.x = matrix(x.span(), 4, 16, 16),
                               .name = name,
                               .first_row = row,
                               .first_column = column,
                               .pieces = pieces},
                              stream);
    };
    const UInt128 plain = digest("a", 0, 0);
    EXPECT_EQ(digest("a", 0, 0), plain);
    EXPECT_FALSE(digest("b", 0, 0) == plain);
    EXPECT_FALSE(digest("a", 1, 0) == plain);
    EXPECT_FALSE(digest("a", 0, 1) == plain);
    // The sum of the rows' hashes must see rows that change places.
    std::swap_ranges(values.begin(), values.begin() + 16, values.begin() + 16);
    EXPECT_FALSE(digest("a", 0, 0) == plain);
    std::swap_ranges(values.begin(), values.begin() + 16, values.begin() + 16);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &values[37], 4);
    bits ^= 1U;
    std::memcpy(&values[37], &bits, 4);
    EXPECT_FALSE(digest("a", 0, 0) == plain);
}

TEST_P(OptimizerTest, WhatDoesNotFitIsRefusedByName) {
    const auto buffer = device.make<float>(32);
    const auto x = matrix(buffer.span(), 2, 16, 16);
    auto& stream = device.stream();
    EXPECT_THROW_WITH(device->adamw({.parameter = buffer.span(),
                                     .grad = buffer.span(),
                                     .m = buffer.span(),
                                     .v = buffer.span().subspan(1)},
                                    stream),
                      InternalError, "adamw: v has 31 elements, expected 32");
    std::vector<double> sums(2);
    const std::vector<Range> beyond = {{0, 17}};
    const std::vector<Range> two = {{0, 8}, {8, 16}};
    EXPECT_THROW_WITH(device->squared_row_sums({.x = x, .pieces = beyond, .sums = sums}, stream),
                      InternalError, "a piece of columns 0 to 17 of 16");
    EXPECT_THROW_WITH(device->squared_row_sums({.x = x, .pieces = two, .sums = sums}, stream),
                      InternalError, "sums has 2 elements, expected 4");
    EXPECT_THROW_WITH(
        device->squared_row_sums({.x = as_bf16(x), .pieces = two, .sums = sums}, stream),
        InternalError, "x is BF16");
    EXPECT_THROW_WITH(
        static_cast<void>(device->digest({.x = x, .name = "w", .pieces = beyond}, stream)),
        InternalError, "digest: a piece of columns 0 to 17 of 16");
}

}  // namespace
}  // namespace rankwise::test
