#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "tests/kernels/matmul/values.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/reference_matmul.hpp"

namespace rankwise::test {
namespace {

using kernels::ConstMatrix;
using kernels::DeviceBuffer;
using kernels::Matrix;
using kernels::Output;
using kernels::PackSide;
using kernels::PackSpec;

/// Weights of `spec.columns` rows, packed for y = x W^T.
DeviceBuffer<std::byte> pack_outputs(const DeviceUnderTest& device, const PackSpec& spec,
                                     const std::vector<float>& w, std::int64_t inputs) {
    const auto weights = device.put(w);
    auto packed = device.make<std::byte>(device->packed_bytes(spec));
    const ConstMatrix matrix(weights.span(), spec.columns, inputs);
    device->pack(spec, PackSide::outputs, {&matrix, 1}, packed.span(), device.stream());
    return packed;
}

struct MatmulCase {
    std::int64_t rows = 1;
    std::int64_t columns = 1;
    std::int64_t inputs = 1;
    Contraction contraction;
    bool bias = false;
    Output output = Output::store;
    std::int64_t x_padding = 0;  // columns between the rows of x that nothing may read
    std::int64_t y_padding = 0;  // and of y that nothing may write
};

/// Runs a case on the device and compares every element, and the gaps between rows of y, with the
/// plain loops.
void check(const DeviceUnderTest& device, const MatmulCase& c, std::uint64_t seed) {
    const PackSpec spec{DType::f32, c.columns, c.contraction};
    const auto w = random_values(c.columns * c.inputs, seed);
    const std::int64_t x_stride = c.inputs + c.x_padding;
    const std::int64_t y_stride = c.columns + c.y_padding;
    const auto x = random_values(c.rows * x_stride, seed + 1);
    const auto y = random_values(c.rows * y_stride, seed + 2);
    const auto bias = random_values(c.bias ? c.columns : 0, seed + 3);

    const auto packed = pack_outputs(device, spec, w, c.inputs);
    const auto x_device = device.put(x);
    const auto y_device = device.put(y);
    const auto bias_device = device.put(bias);
    const ConstMatrix x_matrix(reinterpret_cast<const std::byte*>(x_device.span().handle()),
                               DType::f32, c.rows, c.inputs, x_stride);
    const Matrix y_matrix(reinterpret_cast<std::byte*>(y_device.span().handle()), DType::f32,
                          c.rows, c.columns, y_stride);
    device->matmul({x_matrix, {&spec, packed.span()}, y_matrix, bias_device.span(), c.output},
                   device.stream());
    const auto result = device.get(y_device);

    for (std::int64_t m = 0; m < c.rows; ++m) {
        for (std::int64_t n = 0; n < y_stride; ++n) {
            const auto at = static_cast<std::size_t>(m * y_stride + n);
            float expected = y[at];
            if (n < c.columns) {
                const float start = c.output == Output::resume ? y[at] : 0.0F;
                expected = reference_dot(c.contraction, x.data() + m * x_stride,
                                         w.data() + n * c.inputs, 1, start);
                if (c.bias) expected += bias[static_cast<std::size_t>(n)];
                if (c.output == Output::add) expected = y[at] + expected;
            }
            ASSERT_EQ(result[at], expected) << "row " << m << " column " << n << " of " << c.rows
                                            << " x " << c.columns << ", " << c.inputs << " inputs";
        }
    }
}

class MatmulTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, MatmulTest, testing::ValuesIn(device_cases()), device_name);

TEST_P(MatmulTest, StraightSumsHaveTheBitsOfPlainLoopsForEverySize) {
    std::uint64_t seed = 1;
    for (std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 31}) {
        for (std::int64_t columns : {1, 15, 16, 17, 33, 48, 63, 64, 65, 80, 97}) {
            for (std::int64_t inputs : {1, 3, 16, 37}) {
                check(device, {rows, columns, inputs, Contraction::straight(inputs)}, seed++);
            }
        }
    }
}

TEST_P(MatmulTest, ManyRowsAreSplitOverThreadsWithTheSameBits) {
    check(device, {601, 131, 67, Contraction::straight(67)}, 1);
    check(device, {97, 400, 130, Contraction::straight(130)}, 2);
    check(device, {385, 48, 512, Contraction::straight(512)}, 3);
    check(device, {49, 33, 1024, Contraction::straight(1024)}, 4);
}

TEST_P(MatmulTest, LeavesAreCombinedByTheTreeOfTheReductionList) {
    std::uint64_t seed = 1;
    const std::vector<std::vector<int>> lists{{2}, {2, 2, 2}, {3, 3}, {2, 7}, {2, 2, 3}, {5}};
    for (const auto& radices : lists) {
        for (std::int64_t inputs : {64, 200, 240}) {
            for (std::int64_t rows : {1, 2, 3, 9, 50}) {
                const auto contraction = Contraction::of_leaves({radices}, inputs);
                check(device, {rows, 83, inputs, contraction, true}, seed++);
            }
        }
    }
}

TEST_P(MatmulTest, EmptyLeavesAreSkippedWhereverTheyLie) {
    // Every set of non-empty leaves of a tree of 2 x 2 x 2 and of 2 x 3.
    for (const std::vector<int>& radices : {std::vector{2, 2, 2}, std::vector{2, 3}}) {
        const ReductionTree tree{radices};
        for (unsigned set = 0; set < 1U << static_cast<unsigned>(tree.leaves()); ++set) {
            Contraction contraction{tree, {}};
            for (int leaf = 0; leaf < tree.leaves(); ++leaf) {
                contraction.leaves.emplace_back();
                if ((set >> static_cast<unsigned>(leaf) & 1U) != 0) {
                    contraction.leaves.back().push_back({5 * leaf, 5 * leaf + 5});
                }
            }
            check(device, {3, 20, 40, contraction, true}, set + 1);
        }
    }
}

TEST_P(MatmulTest, ALeafRunsOverItsRangesInTheOrderGiven) {
    Contraction contraction{
        {{2, 2}}, {{{40, 50}, {0, 7}}, {{7, 20}, {50, 51}}, {}, {{30, 40}, {20, 30}, {60, 60}}}};
    check(device, {11, 37, 64, contraction}, 1);
}

TEST_P(MatmulTest, ResultsMeetTheirDestinationAsAsked) {
    for (std::int64_t rows : {1, 3, 12}) {
        check(device, {rows, 50, 40, Contraction::straight(40), true, Output::store, 3, 5}, 1);
        check(device, {rows, 50, 40, Contraction::straight(40), true, Output::add, 3, 5}, 2);
        check(device, {rows, 50, 40, Contraction::straight(40), false, Output::resume, 3, 5}, 3);
        check(device, {rows, 50, 64, Contraction::of_leaves({{2, 2}}, 64), true, Output::add, 1, 1},
              4);
        check(device, {rows, 50, 40, {{}, {{{20, 40}, {0, 8}}}}, false, Output::resume}, 5);
    }
}

TEST_P(MatmulTest, ARowsBitsDoNotDependOnTheOtherRows) {
    constexpr std::int64_t kRows = 70;
    constexpr std::int64_t kInputs = 96;
    const PackSpec spec{DType::f32, 144, Contraction::of_leaves({{2, 3}}, kInputs)};
    const auto packed = pack_outputs(device, spec, random_values(144 * kInputs, 1), kInputs);
    const auto x = device.put(random_values(kRows * kInputs, 2));
    const auto run = [&](Range rows) {
        const auto y = device.make<float>(rows.size() * 144);
        device->matmul({ConstMatrix(x.span(), kRows, kInputs).row_range(rows),
                        {&spec, packed.span()},
                        {y.span(), rows.size(), 144},
                        {},
                        Output::store},
                       device.stream());
        return device.get(y);
    };
    const auto whole = run({0, kRows});
    for (std::int64_t size = 1; size <= 20; ++size) {
        for (std::int64_t begin : {std::int64_t{0}, std::int64_t{7}, kRows - size}) {
            const std::vector<float> expected(whole.begin() + begin * 144,
                                              whole.begin() + (begin + size) * 144);
            ASSERT_EQ(run({begin, begin + size}), expected) << size << " rows from " << begin;
        }
    }
}

TEST_P(MatmulTest, AResumedSumHasTheBitsOfTheWholeSum) {
    const auto w = random_values(40 * 90, 1);
    const PackSpec whole{DType::f32, 40, Contraction::straight(90)};
    const PackSpec first{DType::f32, 40, {{}, {{{0, 33}}}}};
    const PackSpec second{DType::f32, 40, {{}, {{{33, 90}}}}};
    const auto x = device.put(random_values(5 * 90, 2));
    const auto run = [&](const PackSpec& spec, const DeviceBuffer<float>& y, Output output) {
        const auto packed = pack_outputs(device, spec, w, 90);
        device->matmul({{x.span(), 5, 90}, {&spec, packed.span()}, {y.span(), 5, 40}, {}, output},
                       device.stream());
    };
    const auto at_once = device.make<float>(200);
    const auto in_parts = device.make<float>(200);
    run(whole, at_once, Output::store);
    run(first, in_parts, Output::store);
    run(second, in_parts, Output::resume);
    EXPECT_EQ(device.get(in_parts), device.get(at_once));
}

TEST_P(MatmulTest, StackedWeightsServeBothDirections) {
    // q, k, v of 20, 9 and 7 rows: y = x W^T, and dx = dy W with leaves that take rows of each.
    constexpr std::int64_t kInputs = 45;
    const std::vector<std::int64_t> sizes{20, 9, 7};
    const auto w = random_values(36 * kInputs, 1);
    const auto buffer = device.put(w);
    std::vector<ConstMatrix> stacked;
    for (std::int64_t begin = 0; std::int64_t size : sizes) {
        stacked.emplace_back(buffer.span().subspan(begin * kInputs, size * kInputs), size, kInputs);
        begin += size;
    }
    const PackSpec forward{DType::f32, 36, Contraction::straight(kInputs)};
    const PackSpec backward{
        DType::f32,
        kInputs,
        {{{2}}, {{{0, 10}, {20, 25}, {29, 33}}, {{10, 20}, {25, 29}, {33, 36}}}}};
    auto packed_forward = device.make<std::byte>(device->packed_bytes(forward));
    auto packed_backward = device.make<std::byte>(device->packed_bytes(backward));
    device->pack(forward, PackSide::outputs, stacked, packed_forward.span(), device.stream());
    device->pack(backward, PackSide::inputs, stacked, packed_backward.span(), device.stream());
    const auto x = random_values(6 * kInputs, 2);
    const auto dy = random_values(6 * 36, 3);
    const auto y_device = device.make<float>(6 * 36);
    const auto dx_device = device.make<float>(6 * kInputs);
    const auto x_device = device.put(x);
    const auto dy_device = device.put(dy);
    device->matmul({{x_device.span(), 6, kInputs},
                    {&forward, packed_forward.span()},
                    {y_device.span(), 6, 36},
                    {},
                    Output::store},
                   device.stream());
    device->matmul({{dy_device.span(), 6, 36},
                    {&backward, packed_backward.span()},
                    {dx_device.span(), 6, kInputs},
                    {},
                    Output::store},
                   device.stream());
    const auto y = device.get(y_device);
    const auto dx = device.get(dx_device);
    for (std::int64_t m = 0; m < 6; ++m) {
        for (std::int64_t n = 0; n < 36; ++n) {
            ASSERT_EQ(y[static_cast<std::size_t>(m * 36 + n)],
                      reference_dot(forward.contraction, x.data() + m * kInputs,
                                    w.data() + n * kInputs, 1));
        }
        for (std::int64_t k = 0; k < kInputs; ++k) {
            ASSERT_EQ(
                dx[static_cast<std::size_t>(m * kInputs + k)],
                reference_dot(backward.contraction, dy.data() + m * 36, w.data() + k, kInputs));
        }
    }
}

TEST_P(MatmulTest, WeightsOfMoreThanAMebibyteServeBothDirections) {
    // Packed past the caches, but for what a whole line is too long for: 530 is 33 panels and 2
    // columns, 502 is 62 times eight and 6.
    constexpr std::int64_t kOutputs = 530;
    constexpr std::int64_t kInputs = 502;
    const auto w = random_values(kOutputs * kInputs, 1);
    const auto buffer = device.put(w);
    const ConstMatrix stacked(buffer.span(), kOutputs, kInputs);
    const auto check = [&](PackSide side, std::int64_t columns, std::int64_t terms,
                           std::int64_t column_step, std::int64_t term_step) {
        constexpr std::int64_t kRows = 3;
        const PackSpec spec{DType::f32, columns, Contraction::straight(terms)};
        auto packed = device.make<std::byte>(device->packed_bytes(spec));
        ASSERT_GT(packed.span().size(), 1 << 20);
        device->pack(spec, side, {&stacked, 1}, packed.span(), device.stream());
        const auto x = random_values(kRows * terms, 2);
        const auto x_device = device.put(x);
        const auto y_device = device.make<float>(kRows * columns);
        device->matmul({{x_device.span(), kRows, terms},
                        {&spec, packed.span()},
                        {y_device.span(), kRows, columns},
                        {},
                        Output::store},
                       device.stream());
        const auto y = device.get(y_device);
        for (std::int64_t m = 0; m < kRows; ++m) {
            for (std::int64_t n = 0; n < columns; ++n) {
                ASSERT_EQ(y[static_cast<std::size_t>(m * columns + n)],
                          reference_dot(spec.contraction, x.data() + m * terms,
                                        w.data() + n * column_step, term_step))
                    << m << ' ' << n;
            }
        }
    };
    check(PackSide::outputs, kOutputs, kInputs, kInputs, 1);
    check(PackSide::inputs, kInputs, kOutputs, 1, kInputs);
}

TEST_P(MatmulTest, Bf16WeightsAreWidenedExactlyWhenTheyArePacked) {
    constexpr std::int64_t kRows = 21;
    constexpr std::int64_t kInputs = 19;
    std::vector<std::uint16_t> bits;
    std::vector<float> widened;
    for (float value : random_values(kRows * kInputs, 1)) {
        bits.push_back(bf16_from_float(value));
        widened.push_back(float_from_bf16(bits.back()));
    }
    const auto narrow_device = device.put(bits);
    const auto wide_device = device.put(widened);
    const ConstMatrix narrow_matrix(
        reinterpret_cast<const std::byte*>(narrow_device.span().handle()), DType::bf16, kRows,
        kInputs, kInputs);
    const ConstMatrix wide_matrix(wide_device.span(), kRows, kInputs);
    for (PackSide side : {PackSide::outputs, PackSide::inputs}) {
        const bool outputs = side == PackSide::outputs;
        const PackSpec spec{DType::f32, outputs ? kRows : kInputs,
                            Contraction::straight(outputs ? kInputs : kRows)};
        auto from_narrow = device.make<std::byte>(device->packed_bytes(spec));
        auto from_wide = device.make<std::byte>(device->packed_bytes(spec));
        device->pack(spec, side, {&narrow_matrix, 1}, from_narrow.span(), device.stream());
        device->pack(spec, side, {&wide_matrix, 1}, from_wide.span(), device.stream());
        EXPECT_EQ(device.get(from_narrow), device.get(from_wide));
    }
}

TEST_P(MatmulTest, DenormalProductsAndOperandsAreFlushed) {
    const PackSpec spec{DType::f32, 2, Contraction::straight(1)};
    const auto packed = pack_outputs(device, spec, {0x1p-70F, 0x1p100F}, 1);
    const auto x = device.put(std::vector<float>{0x1p-70F, 0x1p-130F});  // the second is denormal
    const auto y = device.make<float>(4);
    device->matmul({{x.span(), 2, 1}, {&spec, packed.span()}, {y.span(), 2, 2}, {}, Output::store},
                   device.stream());
    EXPECT_EQ(device.get(y), (std::vector<float>{0.0F, 0x1p30F, 0.0F, 0.0F}));
}

TEST_P(MatmulTest, NoRowsOrNoColumnsAreNoWork) {
    const PackSpec spec{DType::f32, 16, Contraction::straight(8)};
    const auto packed = pack_outputs(device, spec, random_values(16 * 8, 1), 8);
    const ConstMatrix x(nullptr, DType::f32, 0, 8, 8);
    const Matrix y(nullptr, DType::f32, 0, 16, 16);
    device->matmul({x, {&spec, packed.span()}, y, {}, Output::store}, device.stream());
    const PackSpec none{DType::f32, 0, Contraction::straight(8)};
    EXPECT_EQ(device->packed_bytes(none), 0);
    device->matmul({{nullptr, DType::f32, 3, 8, 8},
                    {&none, {}},
                    {nullptr, DType::f32, 3, 0, 0},
                    {},
                    Output::store},
                   device.stream());
}

TEST_P(MatmulTest, SizesAndTypesThatDoNotFitAreRefused) {
    const PackSpec spec{DType::f32, 16, Contraction::straight(8)};
    const auto w = device.put(random_values(16 * 8, 1));
    const ConstMatrix matrix(w.span(), 16, 8);
    auto packed = device.make<std::byte>(device->packed_bytes(spec));
    const auto x = device.make<float>(2 * 8);
    const auto y = device.make<float>(2 * 17);
    const auto short_bias = device.make<float>(15);
    const auto pack = [&](PackSpec s, DeviceSpan<std::byte> to) {
        device->pack(s, PackSide::outputs, {&matrix, 1}, to, device.stream());
    };
    pack(spec, packed.span());
    EXPECT_THROW(pack(spec, packed.span().subspan(64)), InternalError);
    EXPECT_THROW(pack({DType::f32, 8, Contraction::straight(16)}, packed.span()), InternalError);
    EXPECT_THROW(pack({DType::f32, 16, {{}, {{{1, 9}}}}}, packed.span()), InternalError);
    EXPECT_THROW(pack({DType::bf16, 16, Contraction::straight(8)}, packed.span()), InternalError);
    EXPECT_THROW(pack({DType::f16, 16, Contraction::straight(8)}, packed.span()), InternalError);
    EXPECT_THROW(pack({DType::f32, 16, {{{2}}, {{{0, 8}}}}}, packed.span()), InternalError);

    kernels::MatmulArgs args{{x.span(), 2, 8},
                             {&spec, packed.span()},
                             {y.span().subspan(0, 2 * 16), 2, 16},
                             {},
                             Output::store};
    device->matmul(args, device.stream());
    const auto refused = [&](const auto& change) {
        kernels::MatmulArgs bad = args;
        change(bad);
        EXPECT_THROW(device->matmul(bad, device.stream()), InternalError);
    };
    refused([](auto& bad) { bad.x.rows = 1; });
    refused([](auto& bad) { bad.x.cols = 7; });
    refused([](auto& bad) { bad.y.cols = 15; });
    refused([](auto& bad) { bad.x.dtype = DType::bf16; });
    refused([](auto& bad) { bad.y.dtype = DType::bf16; });
    refused([](auto& bad) { bad.w.spec = nullptr; });
    refused([](auto& bad) { bad.w.data = bad.w.data.subspan(64); });
    refused([&](auto& bad) { bad.bias = short_bias.span(); });
    const auto bias = device.make<float>(16);
    refused([&](auto& bad) { bad.bias = bias.span(), bad.output = Output::resume; });
    try {
        args.x.dtype = DType::bf16;
        device->matmul(args, device.stream());
        FAIL();
    } catch (const InternalError& error) {
        EXPECT_STREQ(error.what(), "matmul: x has element type BF16, the packed weight has F32");
    }
}

}  // namespace
}  // namespace rankwise::test
