#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cpu/thread_team.hpp"
#include "tests/kernels/matmul/values.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/reference_bf16.hpp"

namespace rankwise::test {
namespace {

using kernels::ConstMatrix;
using kernels::DeviceBuffer;
using kernels::Matrix;
using kernels::Output;
using kernels::PackSide;
using kernels::PackSpec;

template <class T>
constexpr DType kType = std::is_same_v<T, float> ? DType::f32 : DType::bf16;

template <class T>
Matrix matrix_over(const DeviceBuffer<T>& buffer, std::int64_t rows, std::int64_t cols,
                   std::int64_t stride) {
    return {reinterpret_cast<std::byte*>(buffer.span().handle()), kType<T>, rows, cols, stride};
}

std::vector<Bf16> random_elements(std::int64_t size, std::uint64_t seed) {
    return to_bf16(random_values(size, seed));
}

/// Weights of `spec.columns` rows, packed for y = x W^T.
template <class T>
DeviceBuffer<std::byte> pack_outputs(const DeviceUnderTest& device, const PackSpec& spec,
                                     const std::vector<T>& w, std::int64_t inputs) {
    const auto weights = device.put(w);
    auto packed = device.make<std::byte>(device->packed_bytes(spec));
    const ConstMatrix matrix = matrix_over(weights, spec.columns, inputs, inputs);
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
    std::int64_t x_padding = 0;
    std::int64_t y_padding = 0;
};

/// Runs a case with y of type T and compares every element, and the gaps between rows of y, with
/// the plain loops. Elements of x that the contraction leaves out are NaN.
template <class T>
void check(const DeviceUnderTest& device, const MatmulCase& c, std::uint64_t seed) {
    const PackSpec spec{DType::bf16, c.columns, c.contraction};
    const auto w = random_elements(c.columns * c.inputs, seed);
    const std::int64_t x_stride = c.inputs + c.x_padding;
    const std::int64_t y_stride = c.columns + c.y_padding;
    auto x = random_elements(c.rows * x_stride, seed + 1);
    std::vector<bool> used(static_cast<std::size_t>(x_stride), false);
    for (const auto& leaf : c.contraction.leaves) {
        for (Range range : leaf) {
            for (std::int64_t k = range.begin; k < range.end; ++k)
                used[static_cast<std::size_t>(k)] = true;
        }
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (!used[i % used.size()]) x[i] = 0x7FC0;
    }
    const auto y_values = random_values(c.rows * y_stride, seed + 2);
    std::vector<T> y;
    if constexpr (std::is_same_v<T, float>) {
        y = y_values;
    } else {
        y = to_bf16(y_values);
    }
    const auto bias = random_values(c.bias ? c.columns : 0, seed + 3);

    const auto packed = pack_outputs(device, spec, w, c.inputs);
    const auto x_device = device.put(x);
    const auto y_device = device.put(y);
    const auto bias_device = device.put(bias);
    device->matmul({matrix_over(x_device, c.rows, c.inputs, x_stride),
                    {&spec, packed.span()},
                    matrix_over(y_device, c.rows, c.columns, y_stride),
                    bias_device.span(),
                    c.output},
                   device.stream());
    const auto result = device.get(y_device);

    for (std::int64_t m = 0; m < c.rows; ++m) {
        for (std::int64_t n = 0; n < y_stride; ++n) {
            const auto at = static_cast<std::size_t>(m * y_stride + n);
            T expected = y[at];
            if (n < c.columns) {
                float start = 0.0F;
                if constexpr (std::is_same_v<T, float>) {
                    if (c.output == Output::resume) start = y[at];
                }
                float sum = reference_dot(c.contraction, x.data() + m * x_stride,
                                          w.data() + n * c.inputs, 1, start);
                if (c.bias) sum += bias[static_cast<std::size_t>(n)];
                if constexpr (std::is_same_v<T, float>) {
                    expected = c.output == Output::add ? y[at] + sum : sum;
                } else {
                    expected = bf16_from_float(sum);
                    if (c.output == Output::add) {
                        expected =
                            bf16_from_float(float_from_bf16(y[at]) + float_from_bf16(expected));
                    }
                }
            }
            ASSERT_EQ(result[at], expected) << "row " << m << " column " << n << " of " << c.rows
                                            << " x " << c.columns << ", " << c.inputs << " inputs";
        }
    }
}
void check_both(const DeviceUnderTest& device, const MatmulCase& c, std::uint64_t seed) {
    check<float>(device, c, seed);
    check<Bf16>(device, c, seed);
}

class Bf16MatmulTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, Bf16MatmulTest, testing::ValuesIn(device_cases()), device_name);

TEST_P(Bf16MatmulTest, StraightSumsHaveTheBitsOfPlainLoopsForEverySize) {
    std::uint64_t seed = 1;
    for (std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 31}) {
        for (std::int64_t columns : {1, 15, 16, 17, 33, 48, 63, 64, 65, 80, 97}) {
            for (std::int64_t inputs : {1, 2, 3, 16, 37}) {
                check_both(device, {rows, columns, inputs, Contraction::straight(inputs)}, seed++);
            }
        }
    }
}

TEST_P(Bf16MatmulTest, ManyRowsAreSplitOverThreadsWithTheSameBits) {
    check_both(device, {601, 131, 67, Contraction::straight(67)}, 1);
    check_both(device, {97, 400, 130, Contraction::straight(130)}, 2);
    check_both(device, {385, 48, 512, Contraction::straight(512)}, 3);
    check_both(device, {49, 33, 1024, Contraction::straight(1024)}, 4);
}

TEST_P(Bf16MatmulTest, LeavesAreCombinedByTheTreeOfTheReductionList) {
    std::uint64_t seed = 1;
    const std::vector<std::vector<int>> lists{{2}, {2, 2, 2}, {3, 3}, {2, 7}, {2, 2, 3}, {5}};
    for (const auto& radices : lists) {
        for (std::int64_t inputs : {64, 201, 240}) {
            for (std::int64_t rows : {1, 2, 3, 9, 50}) {
                const auto contraction = Contraction::of_leaves({radices}, inputs);
                check_both(device, {rows, 83, inputs, contraction, true}, seed++);
            }
        }
    }
}

TEST_P(Bf16MatmulTest, EmptyLeavesAreSkippedWhereverTheyLie) {
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
            check_both(device, {3, 20, 40, contraction, true}, set + 1);
        }
    }
}

TEST_P(Bf16MatmulTest, PairsBeginAnewInEachRangeOfALeaf) {
    Contraction contraction{
        {{2, 2}}, {{{40, 50}, {0, 7}}, {{7, 20}, {50, 51}}, {}, {{30, 40}, {20, 30}, {60, 60}}}};
    check_both(device, {11, 37, 64, contraction}, 1);
    // Ranges that touch: even sizes are as one range, an odd one is not.
    check_both(device, {5, 20, 24, {{}, {{{0, 6}, {6, 14}, {14, 24}}}}}, 2);
    check_both(device, {5, 20, 24, {{}, {{{0, 5}, {5, 14}, {14, 23}}}}}, 3);
    check_both(device, {5, 20, 24, {{}, {{{1, 3}, {3, 9}, {12, 20}}}}}, 4);
}

TEST_P(Bf16MatmulTest, ResultsMeetTheirDestinationAsAsked) {
    for (std::int64_t rows : {1, 3, 12}) {
        check_both(device, {rows, 50, 40, Contraction::straight(40), true, Output::store, 3, 5}, 1);
        check_both(device, {rows, 50, 40, Contraction::straight(40), true, Output::add, 2, 5}, 2);
        check_both(device, {rows, 50, 39, Contraction::straight(39), true, Output::add, 3, 5}, 3);
        check_both(device,
                   {rows, 50, 64, Contraction::of_leaves({{2, 2}}, 64), true, Output::add, 1, 1},
                   4);
        check<float>(device, {rows, 50, 40, Contraction::straight(40), false, Output::resume, 3, 5},
                     5);
        check<float>(device, {rows, 50, 40, {{}, {{{20, 39}, {0, 8}}}}, false, Output::resume}, 6);
    }
}

TEST_P(Bf16MatmulTest, ARowsBitsDoNotDependOnTheOtherRows) {
    constexpr std::int64_t kRows = 70;
    constexpr std::int64_t kInputs = 95;
    const PackSpec spec{DType::bf16, 144, Contraction::of_leaves({{2, 3}}, kInputs)};
    const auto packed = pack_outputs(device, spec, random_elements(144 * kInputs, 1), kInputs);
    const auto x = device.put(random_elements(kRows * kInputs, 2));
    const auto run = [&](Range rows) {
        const auto y = device.make<Bf16>(rows.size() * 144);
        device->matmul({matrix_over(x, kRows, kInputs, kInputs).row_range(rows),
                        {&spec, packed.span()},
                        matrix_over(y, rows.size(), 144, 144),
                        {},
                        Output::store},
                       device.stream());
        return device.get(y);
    };
    const auto whole = run({0, kRows});
    for (std::int64_t size = 1; size <= 20; ++size) {
        for (std::int64_t begin : {std::int64_t{0}, std::int64_t{7}, kRows - size}) {
            const std::vector<Bf16> expected(whole.begin() + begin * 144,
                                             whole.begin() + (begin + size) * 144);
            ASSERT_EQ(run({begin, begin + size}), expected) << size << " rows from " << begin;
        }
    }
}

TEST_P(Bf16MatmulTest, AResumedSumOfWholePairsHasTheBitsOfTheWholeSum) {
    const auto w = random_elements(40 * 90, 1);
    const auto x = device.put(random_elements(5 * 90, 2));
    const auto y = device.make<float>(200);
    const auto run = [&](Range range, Output output) {
        const PackSpec spec{DType::bf16, 40, {{}, {{range}}}};
        const auto packed = pack_outputs(device, spec, w, 90);
        device->matmul({matrix_over(x, 5, 90, 90),
                        {&spec, packed.span()},
                        matrix_over(y, 5, 40, 40),
                        {},
                        output},
                       device.stream());
        return device.get(y);
    };
    const auto at_once = run({0, 90}, Output::store);
    run({0, 34}, Output::store);
    EXPECT_EQ(run({34, 90}, Output::resume), at_once);
}

TEST_P(Bf16MatmulTest, StackedWeightsServeBothDirections) {
    // q, k, v of 20, 9 and 7 rows: y = x W^T, and dx = dy W with leaves that take rows of each.
    constexpr std::int64_t kInputs = 45;
    const std::vector<std::int64_t> sizes{20, 9, 7};
    const auto w = random_elements(36 * kInputs, 1);
    const auto buffer = device.put(w);
    std::vector<ConstMatrix> stacked;
    const ConstMatrix all = matrix_over(buffer, 36, kInputs, kInputs);
    for (std::int64_t begin = 0; std::int64_t size : sizes) {
        stacked.push_back(all.row_range({begin, begin + size}));
        begin += size;
    }
    const PackSpec forward{DType::bf16, 36, Contraction::straight(kInputs)};
    const PackSpec backward{
        DType::bf16,
        kInputs,
        {{{2}}, {{{0, 10}, {20, 25}, {29, 33}}, {{10, 20}, {25, 29}, {33, 36}}}}};
    auto packed_forward = device.make<std::byte>(device->packed_bytes(forward));
    auto packed_backward = device.make<std::byte>(device->packed_bytes(backward));
    device->pack(forward, PackSide::outputs, stacked, packed_forward.span(), device.stream());
    device->pack(backward, PackSide::inputs, stacked, packed_backward.span(), device.stream());
    const auto x = random_elements(6 * kInputs, 2);
    const auto dy = random_elements(6 * 36, 3);
    const auto y_device = device.make<float>(6 * 36);
    const auto dx_device = device.make<float>(6 * kInputs);
    const auto x_device = device.put(x);
    const auto dy_device = device.put(dy);
    device->matmul({matrix_over(x_device, 6, kInputs, kInputs),
                    {&forward, packed_forward.span()},
                    matrix_over(y_device, 6, 36, 36),
                    {},
                    Output::store},
                   device.stream());
    device->matmul({matrix_over(dy_device, 6, 36, 36),
                    {&backward, packed_backward.span()},
                    matrix_over(dx_device, 6, kInputs, kInputs),
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

TEST_P(Bf16MatmulTest, MastersAreRoundedToNearestEvenWhenTheyArePacked) {
    constexpr std::int64_t kRows = 21;
    constexpr std::int64_t kInputs = 19;
    auto masters = random_values(kRows * kInputs, 1);
    for (std::size_t i = 0; i + 4 < masters.size(); i += 5) {  // ties, to even both ways
        masters[i] = 1.0F + 0x1p-8F;
        masters[i + 1] = -1.0F - 0x3p-8F;
        masters[i + 2] = 1.0F + 0x1p-8F + 0x1p-23F;
        masters[i + 3] = std::numeric_limits<float>::infinity();
    }
    const auto wide_device = device.put(masters);
    const auto narrow_device = device.put(to_bf16(masters));
    const ConstMatrix wide = matrix_over(wide_device, kRows, kInputs, kInputs);
    const ConstMatrix narrow = matrix_over(narrow_device, kRows, kInputs, kInputs);
    for (PackSide side : {PackSide::outputs, PackSide::inputs}) {
        const bool outputs = side == PackSide::outputs;
        const PackSpec spec{DType::bf16, outputs ? kRows : kInputs,
                            Contraction::straight(outputs ? kInputs : kRows)};
        auto from_wide = device.make<std::byte>(device->packed_bytes(spec));
        auto from_narrow = device.make<std::byte>(device->packed_bytes(spec));
        device->pack(spec, side, {&wide, 1}, from_wide.span(), device.stream());
        device->pack(spec, side, {&narrow, 1}, from_narrow.span(), device.stream());
        EXPECT_EQ(device.get(from_wide), device.get(from_narrow));
    }
}

TEST_P(Bf16MatmulTest, APackedWeightTakesHalfTheBytesOfFloats) {
    const auto bytes = [&](DType dtype, std::int64_t inputs) {
        return device->packed_bytes({dtype, 48, Contraction::straight(inputs)});
    };
    EXPECT_EQ(2 * bytes(DType::bf16, 64), bytes(DType::f32, 64));
    EXPECT_EQ(bytes(DType::bf16, 63), bytes(DType::bf16, 64));
    EXPECT_EQ(device->packed_bytes({DType::bf16, 16, {{}, {{{0, 3}, {3, 6}}}}}), 16 * 4 * 4);
}

TEST_P(Bf16MatmulTest, ExtremeOperandsGiveTheSameBitsByEveryInstructionSet) {
    const std::vector<Bf16> values{0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x8080, 0x1F80,
                                   0x2080, 0x9FC0, 0x3F80, 0xBF80, 0x5F80, 0xDFC0, 0x6080, 0x7F00};
    constexpr std::int64_t kInputs = 34;
    constexpr std::int64_t kColumns = 40;
    const auto extremes = [&](std::int64_t size, std::uint64_t seed) {
        std::vector<Bf16> elements;
        for (float value : random_values(size, seed)) {
            elements.push_back(values[static_cast<std::size_t>((value + 1.0F) * 8.0F) % 16]);
        }
        return elements;
    };
    const PackSpec spec{DType::bf16, kColumns, Contraction::straight(kInputs)};
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        const auto w = extremes(kColumns * kInputs, seed);
        const auto x = extremes(9 * kInputs, seed + 100);
        const auto packed = pack_outputs(device, spec, w, kInputs);
        const auto x_device = device.put(x);
        const auto y_device = device.make<float>(9 * kColumns);
        const auto rounded_device = device.make<Bf16>(9 * kColumns);
        for (const Matrix& y : {matrix_over(y_device, 9, kColumns, kColumns),
                                matrix_over(rounded_device, 9, kColumns, kColumns)}) {
            device->matmul({matrix_over(x_device, 9, kInputs, kInputs),
                            {&spec, packed.span()},
                            y,
                            {},
                            Output::store},
                           device.stream());
        }
        const auto y = device.get(y_device);
        const auto rounded = device.get(rounded_device);
        const kernels::cpu::FlushDenormals flush;
        for (std::int64_t m = 0; m < 9; ++m) {
            for (std::int64_t n = 0; n < kColumns; ++n) {
                const auto at = static_cast<std::size_t>(m * kColumns + n);
                const float expected = reference_dot(spec.contraction, x.data() + m * kInputs,
                                                     w.data() + n * kInputs, 1);
                if (std::isnan(expected)) {  // of infinities: which NaN is not said
                    ASSERT_TRUE(std::isnan(y[at]));
                    ASSERT_TRUE(std::isnan(float_from_bf16(rounded[at])));
                    continue;
                }
                ASSERT_EQ(std::bit_cast<std::uint32_t>(y[at]),
                          std::bit_cast<std::uint32_t>(expected));
                ASSERT_EQ(rounded[at], bf16_from_float(expected));
            }
        }
    }
}

TEST_P(Bf16MatmulTest, NoRowsOrNoColumnsOrNoTermsAreNoWork) {
    check_both(device, {0, 16, 8, Contraction::straight(8)}, 1);
    check_both(device, {3, 0, 8, Contraction::straight(8)}, 2);
    check_both(device, {3, 20, 8, Contraction::straight(0), true}, 3);
}

TEST_P(Bf16MatmulTest, TypesThatDoNotGoTogetherAreRefused) {
    const PackSpec spec{DType::bf16, 16, Contraction::straight(8)};
    const auto packed = pack_outputs(device, spec, random_elements(16 * 8, 1), 8);
    const auto memory = device.make<float>(2 * 16);
    const auto run = [&](DType x, DType y, Output output) {
        device->matmul({{reinterpret_cast<const std::byte*>(memory.span().handle()), x, 2, 8, 8},
                        {&spec, packed.span()},
                        {reinterpret_cast<std::byte*>(memory.span().handle()), y, 2, 16, 16},
                        {},
                        output},
                       device.stream());
    };
    run(DType::bf16, DType::f32, Output::store);
    EXPECT_THROW(run(DType::f32, DType::f32, Output::store), InternalError);
    EXPECT_THROW(run(DType::bf16, DType::f16, Output::store), InternalError);
    EXPECT_THROW(run(DType::bf16, DType::bf16, Output::resume), InternalError);
}

}  // namespace
}  // namespace rankwise::test
