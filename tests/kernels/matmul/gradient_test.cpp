#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/kernels/matmul/values.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/reference_matmul.hpp"

namespace rankwise::test {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

class GradientTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, GradientTest, testing::ValuesIn(device_cases()), device_name);

void check_weights(const DeviceUnderTest& device, std::int64_t tokens, std::int64_t outputs,
                   std::int64_t inputs, Output output, std::int64_t padding = 0) {
    const std::int64_t dy_stride = outputs + padding;
    const std::int64_t x_stride = inputs + 2 * padding;
    const std::int64_t dw_stride = inputs + padding;
    const auto dy = random_values(tokens * dy_stride, 1);
    const auto x = random_values(tokens * x_stride, 2);
    const auto dw = random_values(outputs * dw_stride, 3);
    const auto dy_device = device.put(dy);
    const auto x_device = device.put(x);
    const auto dw_device = device.put(dw);
    const auto bytes = [](const auto& buffer) {
        return reinterpret_cast<std::byte*>(buffer.span().handle());
    };
    device->weight_gradient({{bytes(dy_device), DType::f32, tokens, outputs, dy_stride},
                             {bytes(x_device), DType::f32, tokens, inputs, x_stride},
                             {bytes(dw_device), DType::f32, outputs, inputs, dw_stride},
                             output},
                            device.stream());
    const auto result = device.get(dw_device);
    for (std::int64_t n = 0; n < outputs; ++n) {
        for (std::int64_t k = 0; k < dw_stride; ++k) {
            const auto at = static_cast<std::size_t>(n * dw_stride + k);
            float expected = dw[at];
            if (k < inputs) {
                const float sum =
                    reference_outer(tokens, dy.data() + n, dy_stride, x.data() + k, x_stride,
                                    output == Output::resume ? dw[at] : 0.0F);
                expected = output == Output::add ? dw[at] + sum : sum;
            }
            ASSERT_EQ(result[at], expected) << "row " << n << " column " << k << " of " << outputs
                                            << " x " << inputs << ", " << tokens << " tokens";
        }
    }
}

TEST_P(GradientTest, WeightGradientsHaveTheBitsOfPlainLoops) {
    for (std::int64_t outputs : {1, 5, 8, 13, 50}) {
        for (std::int64_t inputs : {1, 16, 33, 48, 70, 97}) {
            for (std::int64_t tokens : {1, 7, 40}) {
                for (Output output : {Output::store, Output::add, Output::resume}) {
                    check_weights(device, tokens, outputs, inputs, output);
                }
            }
        }
    }
}

TEST_P(GradientTest, AccumulatorsThatRestBetweenBlocksOfTokensKeepTheirBits) {
    for (Output output : {Output::store, Output::add, Output::resume}) {
        for (std::int64_t tokens : {255, 256, 257, 600})
            check_weights(device, tokens, 19, 50, output, 3);
        check_weights(device, 300, 520, 30, output);
        check_weights(device, 300, 20, 1000, output);
    }
}

TEST_P(GradientTest, RowsAMultipleOfTwoKilobytesApartArePacked) {
    for (Output output : {Output::store, Output::add, Output::resume}) {
        for (std::int64_t outputs : {512, 499, 11})
            check_weights(device, 270, outputs, 50, output, 512 - outputs);
    }
}

TEST_P(GradientTest, NoTokensAreAZeroSumThatIsNotAdded) {
    for (Output output : {Output::store, Output::add, Output::resume}) {
        check_weights(device, 0, 9, 20, output, 1);
    }
}

TEST_P(GradientTest, BiasGradientsHaveTheBitsOfPlainLoops) {
    for (std::int64_t tokens : {0, 1, 33, 500}) {
        for (std::int64_t columns : {1, 15, 64, 65, 1100}) {
            for (Output output : {Output::store, Output::add}) {
                const auto dy = random_values(tokens * (columns + 3), 1);
                const auto db = random_values(columns, 2);
                const auto dy_device = device.put(dy);
                const auto db_device = device.put(db);
                device->bias_gradient(
                    {{reinterpret_cast<const std::byte*>(dy_device.span().handle()), DType::f32,
                      tokens, columns, columns + 3},
                     db_device.span(),
                     output},
                    device.stream());
                const auto result = device.get(db_device);
                for (std::int64_t n = 0; n < columns; ++n) {
                    float sum = 0.0F;
                    for (std::int64_t t = 0; t < tokens; ++t) {
                        sum += dy[static_cast<std::size_t>(t * (columns + 3) + n)];
                    }
                    const float before = db[static_cast<std::size_t>(n)];
                    ASSERT_EQ(result[static_cast<std::size_t>(n)],
                              output == Output::add ? (tokens == 0 ? before : before + sum) : sum);
                }
            }
        }
    }
}

TEST_P(GradientTest, SizesThatDoNotFitAreRefused) {
    const auto memory = device.make<float>(64);
    const ConstMatrix dy(memory.span().subspan(0, 8), 2, 4);
    const ConstMatrix x(memory.span().subspan(8, 6), 2, 3);
    const Matrix dw(memory.span().subspan(16, 12), 4, 3);
    const auto weights = [&](ConstMatrix a, ConstMatrix b, Matrix to) {
        device->weight_gradient({a, b, to, Output::store}, device.stream());
    };
    weights(dy, x, dw);
    EXPECT_THROW(weights(dy.row_range({0, 1}), x, dw), InternalError);
    EXPECT_THROW(weights(dy.col_range({0, 3}), x, dw), InternalError);
    EXPECT_THROW(weights(dy, x.col_range({0, 2}), dw), InternalError);
    ConstMatrix bf16 = x;
    bf16.dtype = DType::bf16;
    EXPECT_THROW(weights(dy, bf16, dw), InternalError);

    const auto bias = [&](std::int64_t size, Output output) {
        device->bias_gradient({dy, memory.span().subspan(16, size), output}, device.stream());
    };
    bias(4, Output::store);
    EXPECT_THROW(bias(5, Output::store), InternalError);
    EXPECT_THROW(bias(4, Output::resume), InternalError);
}

}  // namespace
}  // namespace rankwise::test
