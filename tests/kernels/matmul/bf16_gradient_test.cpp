#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/kernels/matmul/values.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/reference_bf16.hpp"

namespace rankwise::test {
namespace {

using kernels::Output;

class Bf16GradientTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, Bf16GradientTest, testing::ValuesIn(device_cases()), device_name);

void check_weights(const DeviceUnderTest& device, const std::vector<std::int64_t>& borders,
                   std::int64_t outputs, std::int64_t inputs, Output output,
                   std::int64_t padding = 0) {
    const std::int64_t tokens = borders.back();
    const std::int64_t dy_stride = outputs + padding;
    const std::int64_t x_stride = inputs + 2 * padding;
    const std::int64_t dw_stride = inputs + padding;
    const auto dy = to_bf16(random_values(tokens * dy_stride, 1));
    const auto x = to_bf16(random_values(tokens * x_stride, 2));
    const auto dw = random_values(outputs * dw_stride, 3);
    const auto dy_device = device.put(dy);
    const auto x_device = device.put(x);
    const auto dw_device = device.put(dw);
    const auto bytes = [](const auto& buffer) {
        return reinterpret_cast<std::byte*>(buffer.span().handle());
    };
    kernels::WeightGradientArgs args{{bytes(dy_device), DType::bf16, tokens, outputs, dy_stride},
                                     {bytes(x_device), DType::bf16, tokens, inputs, x_stride},
                                     {bytes(dw_device), DType::f32, outputs, inputs, dw_stride},
                                     output,
                                     {}};
    if (borders.size() > 2) args.segments = borders;
    device->weight_gradient(args, device.stream());
    const auto result = device.get(dw_device);
    for (std::int64_t n = 0; n < outputs; ++n) {
        for (std::int64_t k = 0; k < dw_stride; ++k) {
            const auto at = static_cast<std::size_t>(n * dw_stride + k);
            float expected = dw[at];
            if (k < inputs) {
                const float sum =
                    reference_outer(borders, dy.data() + n, dy_stride, x.data() + k, x_stride,
                                    output == Output::resume ? dw[at] : 0.0F);
                expected = output == Output::add ? dw[at] + sum : sum;
            }
            ASSERT_EQ(result[at], expected) << "row " << n << " column " << k << " of " << outputs
                                            << " x " << inputs << ", " << tokens << " tokens";
        }
    }
}

TEST_P(Bf16GradientTest, WeightGradientsHaveTheBitsOfPlainLoops) {
    for (std::int64_t outputs : {1, 5, 8, 13, 50}) {
        for (std::int64_t inputs : {1, 16, 33, 48, 70, 97}) {
            for (std::int64_t tokens : {1, 2, 7, 40}) {
                for (Output output : {Output::store, Output::add, Output::resume}) {
                    check_weights(device, {0, tokens}, outputs, inputs, output);
                }
            }
        }
    }
}

TEST_P(Bf16GradientTest, PairsOfTokensBeginAnewInEachSegment) {
    for (Output output : {Output::store, Output::add, Output::resume}) {
        check_weights(device, {0, 3, 8}, 13, 33, output, 1);
        check_weights(device, {0, 1, 2, 2, 3, 9, 10}, 13, 33, output, 1);
        check_weights(device, {0, 0, 5, 5}, 13, 33, output);
    }
}

TEST_P(Bf16GradientTest, AccumulatorsThatRestBetweenBlocksOfTokensKeepTheirBits) {
    for (Output output : {Output::store, Output::add, Output::resume}) {
        for (std::int64_t tokens : {511, 512, 513, 1023, 1024, 1025, 2300})
            check_weights(device, {0, tokens}, 19, 50, output, 3);
        check_weights(device, {0, 301, 1100}, 520, 30, output);
        check_weights(device, {0, 700}, 20, 1000, output);
        // Segments that end where a block does, and beside it; single tokens fill blocks with
        // pairs.
        check_weights(device, {0, 511, 1023, 1024, 1536}, 19, 50, output, 1);
        std::vector<std::int64_t> singles;
        for (std::int64_t token = 0; token <= 700; ++token) singles.push_back(token);
        check_weights(device, singles, 9, 20, output);
    }
}

TEST_P(Bf16GradientTest, NoTokensAreAZeroSumThatIsNotAdded) {
    for (Output output : {Output::store, Output::add, Output::resume}) {
        check_weights(device, {0, 0}, 9, 20, output, 1);
    }
}

TEST_P(Bf16GradientTest, BiasGradientsHaveTheBitsOfPlainLoops) {
    for (std::int64_t tokens : {0, 1, 33, 500}) {
        for (std::int64_t columns : {1, 15, 64, 65, 1100}) {
            for (Output output : {Output::store, Output::add}) {
                const auto dy = to_bf16(random_values(tokens * (columns + 3), 1));
                const auto db = random_values(columns, 2);
                const auto dy_device = device.put(dy);
                const auto db_device = device.put(db);
                device->bias_gradient(
                    {{reinterpret_cast<const std::byte*>(dy_device.span().handle()), DType::bf16,
                      tokens, columns, columns + 3},
                     db_device.span(),
                     output},
                    device.stream());
                const auto result = device.get(db_device);
                for (std::int64_t n = 0; n < columns; ++n) {
                    float sum = 0.0F;
                    for (std::int64_t t = 0; t < tokens; ++t) {
                        sum += float_from_bf16(dy[static_cast<std::size_t>(t * (columns + 3) + n)]);
                    }
                    const float before = db[static_cast<std::size_t>(n)];
                    ASSERT_EQ(result[static_cast<std::size_t>(n)],
                              output == Output::add ? (tokens == 0 ? before : before + sum) : sum);
                }
            }
        }
    }
}

TEST_P(Bf16GradientTest, BordersAndTypesThatDoNotFitAreRefused) {
    const auto memory = device.make<float>(64);
    auto* handle = reinterpret_cast<std::byte*>(memory.span().handle());
    const auto run = [&](DType dy, DType x, std::vector<std::int64_t> segments) {
        device->weight_gradient({{handle, dy, 6, 4, 4},
                                 {handle, x, 6, 3, 3},
                                 {handle + 128, DType::f32, 4, 3, 3},
                                 Output::store,
                                 segments},
                                device.stream());
    };
    run(DType::bf16, DType::bf16, {0, 2, 6});
    EXPECT_THROW(run(DType::bf16, DType::bf16, {0, 5}), InternalError);
    EXPECT_THROW(run(DType::bf16, DType::bf16, {1, 6}), InternalError);
    EXPECT_THROW(run(DType::bf16, DType::bf16, {0, 4, 2, 6}), InternalError);
    EXPECT_THROW(run(DType::bf16, DType::bf16, {0}), InternalError);
    EXPECT_THROW(run(DType::bf16, DType::f32, {}), InternalError);
    EXPECT_THROW(run(DType::f16, DType::f16, {}), InternalError);
}

}  // namespace
}  // namespace rankwise::test
