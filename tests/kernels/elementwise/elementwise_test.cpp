// SwiGLU, adding and moving rows, on every device.
#include "kernels/elementwise.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/devices.hpp"
#include "tests/support/reference_elementwise.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

class ElementwiseTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, ElementwiseTest, testing::ValuesIn(device_cases()), device_name);

struct Shape {
    std::int64_t rows;
    std::int64_t cols;
};
const std::vector<Shape> kShapes = {{1, 1}, {3, 16}, {5, 37}, {200, 150}, {0, 8}, {4, 0}};

TEST_P(ElementwiseTest, SwigluIsTheContractsSequence) {
    for (const Shape& s : kShapes) {
        const std::int64_t stride = 2 * s.cols + 3;
        const auto values = random_floats(s.rows * stride, 1, 9.0F);
        const auto gate_up = device.put(values);
        std::vector<float> expected(static_cast<std::size_t>(s.rows * (s.cols + 1)), -7.0F);
        const auto out = device.put(expected);
        for (std::int64_t t = 0; t < s.rows; ++t) {
            for (std::int64_t i = 0; i < s.cols; ++i) {
                expected[static_cast<std::size_t>(t * (s.cols + 1) + i)] =
                    reference_swiglu(values[static_cast<std::size_t>(t * stride + i)],
                                     values[static_cast<std::size_t>(t * stride + s.cols + i)]);
            }
        }
        device->swiglu({.gate_up = matrix(gate_up.span(), s.rows, 2 * s.cols, stride),
                        .out = matrix(out.span(), s.rows, s.cols, s.cols + 1)},
                       device.stream());
        EXPECT_EQ(device.get(out), expected);
    }
}

TEST_P(ElementwiseTest, SwigluIsNearTheExactValueAlsoWhereTheGateIsLarge) {
    const std::vector<float> gates = {-200.0F, -88.8F, -30.0F, -1.0F, -0.0F, 0.5F, 20.0F, 100.0F};
    for (const float gate : gates) {
        const auto gate_up = device.put(std::vector<float>{gate, 1.5F});
        const auto out = device.make<float>(1);
        device->swiglu(
            {.gate_up = matrix(gate_up.span(), 1, 2, 2), .out = matrix(out.span(), 1, 1, 1)},
            device.stream());
        const double exact = double_swiglu(static_cast<double>(gate), 1.5);
        // exp, sum, quotient, product; below the normal range: 0.
        EXPECT_NEAR(device.get(out)[0], exact, 4 * 0x1p-24 * std::abs(exact) + 0x1p-118) << gate;
    }
}

TEST_P(ElementwiseTest, SwigluBackwardIsTheContractsSequenceAlsoInPlace) {
    for (const Shape& s : kShapes) {
        const std::int64_t stride = 2 * s.cols + 3;
        const auto values = random_floats(s.rows * stride, 1, 9.0F);
        const auto grads = random_floats(s.rows * s.cols, 2);
        const auto gate_up = device.put(values);
        const auto dout = device.put(grads);
        const auto dgate_up = device.put(values);
        auto expected = values;
        for (std::int64_t t = 0; t < s.rows; ++t) {
            for (std::int64_t i = 0; i < s.cols; ++i) {
                const auto gate = static_cast<std::size_t>(t * stride + i);
                const auto up = gate + static_cast<std::size_t>(s.cols);
                const GateUp d = reference_swiglu_backward(
                    values[gate], values[up], grads[static_cast<std::size_t>(t * s.cols + i)]);
                expected[gate] = d.gate;
                expected[up] = d.up;
            }
        }
        const kernels::ConstMatrix dout_matrix = matrix(dout.span(), s.rows, s.cols, s.cols);
        const kernels::Matrix in = matrix(gate_up.span(), s.rows, 2 * s.cols, stride);
        device->swiglu_backward({.gate_up = in,
                                 .dout = dout_matrix,
                                 .dgate_up = matrix(dgate_up.span(), s.rows, 2 * s.cols, stride)},
                                device.stream());
        EXPECT_EQ(device.get(dgate_up), expected);
        device->swiglu_backward({.gate_up = in, .dout = dout_matrix, .dgate_up = in},
                                device.stream());
        EXPECT_EQ(device.get(gate_up), expected);
    }
}

TEST_P(ElementwiseTest, SwigluBackwardIsTheSlopeOfDifferencesInDouble) {
    constexpr double kStep = 1e-5;
    const auto values = random_floats(40, 3, 4.0F);
    const auto gate_up = device.put(values);
    const auto dout = device.put(std::vector<float>(20, 1.0F));
    device->swiglu_backward({.gate_up = matrix(gate_up.span(), 1, 40, 40),
                             .dout = matrix(dout.span(), 1, 20, 20),
                             .dgate_up = matrix(gate_up.span(), 1, 40, 40)},
                            device.stream());
    const auto got = device.get(gate_up);
    for (std::size_t i = 0; i < 20; ++i) {
        const double gate = static_cast<double>(values[i]);
        const double up = static_cast<double>(values[i + 20]);
        EXPECT_NEAR(
            got[i],
            (double_swiglu(gate + kStep, up) - double_swiglu(gate - kStep, up)) / (2 * kStep),
            1e-6);
        EXPECT_NEAR(
            got[i + 20],
            (double_swiglu(gate, up + kStep) - double_swiglu(gate, up - kStep)) / (2 * kStep),
            1e-6);
    }
}

TEST_P(ElementwiseTest, AddRoundsOnceAnElement) {
    for (const Shape& s : kShapes) {
        const auto a = random_floats(s.rows * (s.cols + 1), 1);
        const auto b = random_floats(s.rows * (s.cols + 2), 2);
        const auto from = device.put(a);
        const auto to = device.put(b);
        auto expected = b;
        for (std::int64_t t = 0; t < s.rows; ++t) {
            for (std::int64_t i = 0; i < s.cols; ++i) {
                expected[static_cast<std::size_t>(t * (s.cols + 2) + i)] +=
                    a[static_cast<std::size_t>(t * (s.cols + 1) + i)];
            }
        }
        device->add({.from = matrix(from.span(), s.rows, s.cols, s.cols + 1),
                     .to = matrix(to.span(), s.rows, s.cols, s.cols + 2)},
                    device.stream());
        EXPECT_EQ(device.get(to), expected);
    }
}

TEST_P(ElementwiseTest, AddInOrderIsSeveralAddsInARow) {
    for (const std::int64_t count : {1, 17, 2048, 5000, 70000}) {
        std::vector<std::vector<float>> values;
        std::vector<kernels::DeviceBuffer<float>> buffers;
        for (unsigned seed = 0; seed < 5; ++seed) {
            values.push_back(random_floats(count, seed));
            // Of very different sizes, so that another order gives other bits.
            for (float& value : values.back())
                value = std::ldexp(value, 4 * static_cast<int>(seed));
            buffers.push_back(device.put(values.back()));
        }
        auto expected = values.back();
        std::vector<DeviceSpan<const float>> from;
        for (std::size_t source = 0; source + 1 < values.size(); ++source) {
            from.emplace_back(buffers[source].span());
            for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += values[source][i];
        }
        device->add_in_order({.from = from, .to = buffers.back().span()}, device.stream());
        EXPECT_EQ(device.get(buffers.back()), expected) << count;
        device->add_in_order({.from = {}, .to = buffers.back().span()}, device.stream());
        EXPECT_EQ(device.get(buffers.back()), expected) << count;
    }
}

TEST_P(ElementwiseTest, FillKeepsToItsColumns) {
    const auto to = device.put(std::vector<float>(200 * 40, 1.0F));
    std::vector<float> expected(200 * 40, 1.0F);
    for (std::size_t t = 0; t < 200; ++t) {
        for (std::size_t i = 0; i < 37; ++i) expected[t * 40 + i] = -0.0F;
    }
    device->fill({.to = matrix(to.span(), 200, 37, 40), .value = -0.0F}, device.stream());
    const auto got = device.get(to);
    EXPECT_EQ(got, expected);
    EXPECT_TRUE(std::signbit(got[0]));
}

TEST_P(ElementwiseTest, GatherTakesRowsInAnyOrderAndOften) {
    const std::int64_t cols = 37;
    const auto values = random_floats(5 * 40, 1);
    const auto from = device.put(values);
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < 700; ++i) rows.push_back((i * 3) % 5);
    std::vector<float> expected(700 * 38, -7.0F);
    const auto to = device.put(expected);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t c = 0; c < 37; ++c) {
            expected[i * 38 + c] = values[static_cast<std::size_t>(rows[i]) * 40 + c];
        }
    }
    device->gather_rows({.from = matrix(from.span(), 5, cols, 40),
                         .rows = rows,
                         .to = matrix(to.span(), 700, cols, 38)},
                        device.stream());
    EXPECT_EQ(device.get(to), expected);
}

TEST_P(ElementwiseTest, ScatterAddsWhatSharesARowInOrderAndClearsTheOthers) {
    const std::int64_t cols = 37;
    for (const std::int64_t count : {0, 1, 9, 700}) {
        const std::int64_t places = 301;
        const auto values = random_floats(count * 40, 1);
        std::vector<std::int64_t> rows;
        for (std::int64_t i = 0; i < count; ++i) rows.push_back((i * i * 7 + 3) % places);
        const auto from = device.put(values);
        const auto to =
            device.put(std::vector<float>(static_cast<std::size_t>(places * 38), -7.0F));
        std::vector<float> expected(static_cast<std::size_t>(places * 38), -7.0F);
        for (std::int64_t r = 0; r < places; ++r) {
            for (std::int64_t c = 0; c < cols; ++c) {
                float& out = expected[static_cast<std::size_t>(r * 38 + c)];
                out = 0.0F;
                bool first = true;
                for (std::int64_t i = 0; i < count; ++i) {
                    if (rows[static_cast<std::size_t>(i)] != r) continue;
                    const float value = values[static_cast<std::size_t>(i * 40 + c)];
                    out = first ? value : out + value;
                    first = false;
                }
            }
        }
        device->scatter_rows({.from = matrix(from.span(), count, cols, 40),
                              .rows = rows,
                              .to = matrix(to.span(), places, cols, 38)},
                             device.stream());
        EXPECT_EQ(device.get(to), expected);
    }
}

TEST_P(ElementwiseTest, ScatteringOneRowKeepsItsBitsEvenOfMinusZero) {
    const auto from = device.put(std::vector<float>{-0.0F});
    const auto to = device.put(std::vector<float>{1.0F});
    const std::vector<std::int64_t> rows = {0};
    device->scatter_rows(
        {.from = matrix(from.span(), 1, 1, 1), .rows = rows, .to = matrix(to.span(), 1, 1, 1)},
        device.stream());
    EXPECT_TRUE(std::signbit(device.get(to)[0]));
}

TEST_P(ElementwiseTest, WhatDoesNotFitIsRefusedByName) {
    const auto buffer = device.make<float>(64);
    const auto good = matrix(buffer.span(), 4, 8, 8);
    const auto half = matrix(buffer.span(), 4, 4, 4);
    auto& stream = device.stream();
    EXPECT_THROW_WITH(device->swiglu({.gate_up = good, .out = good}, stream), InternalError,
                      "gate_up is 4 x 8, expected 4 x 16");
    EXPECT_THROW_WITH(device->swiglu({.gate_up = good, .out = as_bf16(half)}, stream),
                      InternalError, "gate_up is F32, expected BF16");
    EXPECT_THROW_WITH(
        device->swiglu_backward({.gate_up = good, .dout = half, .dgate_up = half}, stream),
        InternalError, "dgate_up is 4 x 4, expected 4 x 8");
    EXPECT_THROW_WITH(device->add({.from = half, .to = good}, stream), InternalError,
                      "add: from is 4 x 4, expected 4 x 8");
    const std::vector<DeviceSpan<const float>> sources = {buffer.span(),
                                                          buffer.span().subspan(0, 63)};
    EXPECT_THROW_WITH(device->add_in_order({.from = sources, .to = buffer.span()}, stream),
                      InternalError, "add_in_order: 63 elements to add to 64");
    const std::vector<std::int64_t> rows = {0, 1, 2, 4};
    EXPECT_THROW_WITH(device->gather_rows({.from = good, .rows = rows, .to = good}, stream),
                      InternalError, "gather_rows: row 4 of 4");
    EXPECT_THROW_WITH(device->scatter_rows({.from = good, .rows = rows, .to = good}, stream),
                      InternalError, "scatter_rows: row 4 of 4");
    const std::vector<std::int64_t> few = {0, -1};
    EXPECT_THROW_WITH(device->gather_rows({.from = good, .rows = few, .to = good}, stream),
                      InternalError, "rows has 2 elements, expected 4");
    EXPECT_THROW_WITH(
        device->gather_rows({.from = good, .rows = few, .to = good.row_range({0, 2})}, stream),
        InternalError, "gather_rows: row -1 of 4");
}

}  // namespace
}  // namespace rankwise::test
