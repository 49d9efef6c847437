// Ops on bf16 activations: the bits of the same op on the widened values, each result rounded once.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <vector>

#include "tests/support/devices.hpp"
#include "tests/support/op_test.hpp"
#include "tests/support/reference_bf16.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

using kernels::Matrix;
using kernels::Output;

class Bf16OpsTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, Bf16OpsTest, testing::ValuesIn(device_cases()), device_name);

struct Shape {
    std::int64_t rows;
    std::int64_t cols;
};
const std::vector<Shape> kShapes = {{1, 2}, {3, 16}, {5, 38}, {200, 150}, {0, 8}};

/// The same values as bf16 and, widened, as floats. Rows lie three elements apart from each other.
class Twin {
  public:
    Twin(const DeviceUnderTest& device, std::int64_t rows, std::int64_t cols, std::uint64_t seed,
         float scale = 1.0F)
        : device_(device),
          rows_(rows),
          cols_(cols),
          bf16_(device.put(to_bf16(random_floats(rows * (cols + 3), seed, scale)))),
          floats_(device.put(widened(device.get(bf16_)))) {}

    [[nodiscard]] Matrix of(DType type) const {
        auto* handle = type == DType::bf16 ? reinterpret_cast<std::byte*>(bf16_.span().handle())
                                           : reinterpret_cast<std::byte*>(floats_.span().handle());
        return {handle, type, rows_, cols_, cols_ + 3};
    }
    /// Whether the bf16 elements are the floats rounded, those between the rows too.
    void expect_equal() const {
        EXPECT_EQ(device_.get(bf16_), to_bf16(device_.get(floats_))) << rows_ << " x " << cols_;
    }

  private:
    const DeviceUnderTest& device_;
    std::int64_t rows_;
    std::int64_t cols_;
    kernels::DeviceBuffer<Bf16> bf16_;
    kernels::DeviceBuffer<float> floats_;
};

void on_both(const std::function<void(DType)>& op) {
    op(DType::bf16);
    op(DType::f32);
}

TEST_P(Bf16OpsTest, NormsRoundTheirResultsAndKeepTheirStatisticsInFloat) {
    for (const Shape& s : kShapes) {
        for (const std::int64_t groups : {1, 2}) {
            const std::int64_t size = s.cols / groups;
            const Twin x(device, s.rows, s.cols, 1);
            const Twin y(device, s.rows, s.cols, 2);
            const Twin dy(device, s.rows, s.cols, 3);
            const Twin dx(device, s.rows, s.cols, 4);
            const auto weight = device.put(random_floats(size, 5));
            std::vector<std::int64_t> blocks{0};
            while (blocks.back() < s.rows) blocks.push_back(std::min(blocks.back() + 64, s.rows));
            std::vector<std::vector<float>> inv_rms;
            std::vector<std::vector<float>> dw;
            on_both([&](DType type) {
                const auto r = device.make<float>(s.rows * groups);
                const auto sums = device.make<float>(size);
                device->rms_norm({.x = x.of(type),
                                  .groups = groups,
                                  .weight = weight.span(),
                                  .eps = 1e-5F,
                                  .y = y.of(type),
                                  .inv_rms = r.span()},
                                 device.stream());
                for (const Output output : {Output::add, Output::store}) {
                    const Twin& to = output == Output::add ? dx : dy;
                    device->rms_norm_backward({.dy = dy.of(type),
                                               .x = x.of(type),
                                               .groups = groups,
                                               .weight = weight.span(),
                                               .inv_rms = r.span(),
                                               .dx = to.of(type),
                                               .output = output},
                                              device.stream());
                }
                device->rms_norm_weight_gradient(
                    {.dy = x.of(type),
                     .x = x.of(type),
                     .groups = groups,
                     .group_order = {{{static_cast<int>(groups)}},
                                     groups == 1
                                         ? std::vector<std::vector<Range>>{{{0, 1}}}
                                         : std::vector<std::vector<Range>>{{{0, 1}}, {{1, 2}}}},
                     .inv_rms = r.span(),
                     .blocks = blocks,
                     .dw = sums.span(),
                     .output = Output::store},
                    device.stream());
                inv_rms.push_back(device.get(r));
                dw.push_back(device.get(sums));
            });
            y.expect_equal();
            dx.expect_equal();
            dy.expect_equal();
            EXPECT_EQ(inv_rms[0], inv_rms[1]);
            EXPECT_EQ(dw[0], dw[1]);
        }
    }
}

TEST_P(Bf16OpsTest, RotatedPairsAreRoundedOnce) {
    const auto cosine = device.put(random_floats(16 * 19, 1));
    const auto sine = device.put(random_floats(16 * 19, 2));
    for (const std::int64_t heads : {1, 3}) {
        const Twin x(device, 9, heads * 38, 3);
        const std::vector<std::int32_t> positions{0, 1, 2, 3, 4, 15, 6, 7, 8};
        on_both([&](DType type) {
            device->rope({.x = x.of(type),
                          .heads = heads,
                          .head_dim = 38,
                          .positions = positions,
                          .cosine = cosine.span(),
                          .sine = sine.span(),
                          .inverse = heads == 3},
                         device.stream());
        });
        x.expect_equal();
    }
}

TEST_P(Bf16OpsTest, SwigluAndItsGradientAreRoundedOnce) {
    for (const Shape& s : kShapes) {
        const Twin gate_up(device, s.rows, 2 * s.cols, 1, 9.0F);
        const Twin out(device, s.rows, s.cols, 2);
        const Twin dgate_up(device, s.rows, 2 * s.cols, 3);
        const Twin dout(device, s.rows, s.cols, 4);
        on_both([&](DType type) {
            device->swiglu({.gate_up = gate_up.of(type), .out = out.of(type)}, device.stream());
            device->swiglu_backward(
                {.gate_up = gate_up.of(type), .dout = dout.of(type), .dgate_up = dgate_up.of(type)},
                device.stream());
        });
        out.expect_equal();
        dgate_up.expect_equal();
    }
}

TEST_P(Bf16OpsTest, RowsAreAddedGatheredAndScattered) {
    for (const Shape& s : kShapes) {
        const Twin from(device, s.rows, s.cols, 1);
        const Twin to(device, s.rows, s.cols, 2);
        const Twin gathered(device, s.rows, s.cols, 3);
        const Twin scattered(device, s.rows, s.cols, 4);
        std::vector<std::int64_t> rows;
        for (std::int64_t t = 0; t < s.rows; ++t) rows.push_back(t / 3 * 2 % s.rows);
        on_both([&](DType type) {
            device->add({.from = from.of(type), .to = to.of(type)}, device.stream());
            device->gather_rows({.from = from.of(type), .rows = rows, .to = gathered.of(type)},
                                device.stream());
            device->scatter_rows({.from = from.of(type), .rows = rows, .to = scattered.of(type)},
                                 device.stream());
        });
        to.expect_equal();
        gathered.expect_equal();
        scattered.expect_equal();
    }
}

TEST_P(Bf16OpsTest, FinishedSumsAreRoundedAndThenAdded) {
    for (const Shape& s : kShapes) {
        const auto sums = random_floats(s.rows * s.cols, 1);
        const auto before = to_bf16(random_floats(s.rows * s.cols, 2));
        const auto from = device.put(sums);
        const auto added = device.put(before);
        const auto rounded = device.put(before);
        const auto as_matrix = [&](const kernels::DeviceBuffer<Bf16>& buffer) {
            return Matrix(reinterpret_cast<std::byte*>(buffer.span().handle()), DType::bf16, s.rows,
                          s.cols, s.cols);
        };
        const Matrix from_matrix(from.span(), s.rows, s.cols);
        device->add({.from = from_matrix, .to = as_matrix(added)}, device.stream());
        device->round({.from = from_matrix, .to = as_matrix(rounded)}, device.stream());
        std::vector<Bf16> expected;
        for (std::size_t i = 0; i < sums.size(); ++i) {
            expected.push_back(bf16_from_float(float_from_bf16(before[i]) +
                                               float_from_bf16(bf16_from_float(sums[i]))));
        }
        EXPECT_EQ(device.get(added), expected);
        EXPECT_EQ(device.get(rounded), to_bf16(sums));
    }
}

TEST_P(Bf16OpsTest, EmbeddingsAreRoundedRowsOfTheTableAndTheirGradientsSumsInFloat) {
    const Twin table(device, 7, 150, 1);
    const auto masters = device.put(random_floats(7 * 150, 2));
    const std::vector<std::int32_t> ids{3, 3, 6, 0, 3};
    const std::vector<std::int32_t> unique{0, 3, 6};
    const Twin out(device, 5, 150, 3);
    std::vector<std::vector<float>> gradients;
    on_both([&](DType type) {
        device->embed({.table = table.of(type), .ids = ids, .out = out.of(type)}, device.stream());
        const auto drows = device.make<float>(3 * 150);
        device->embed_gradient({.dout = out.of(type),
                                .ids = ids,
                                .unique = unique,
                                .drows = Matrix(drows.span(), 3, 150)},
                               device.stream());
        gradients.push_back(device.get(drows));
    });
    out.expect_equal();
    EXPECT_EQ(gradients[0], gradients[1]);
    on_both([&](DType type) {
        device->embed({.table = Matrix(masters.span(), 7, 150), .ids = ids, .out = out.of(type)},
                      device.stream());
    });
    out.expect_equal();
}

TEST_P(Bf16OpsTest, LogitsGiveTheStatisticsOfTheirWidenedValuesAndRoundedGradients) {
    constexpr std::int64_t kRows = 6;
    constexpr std::int64_t kColumns = 70;
    const Twin logits(device, kRows, kColumns, 1, 5.0F);
    const std::vector<Range> leaves{{16, 48}, {48, 86}};
    const std::vector<float> temperature(kRows, 0.75F);
    const std::vector<float> coefficient{1.0F, -0.5F, 2.0F, 0.0F, 1.5F, 3.0F};
    const std::vector<std::int32_t> targets{16, 85, -1, 2, 40, 80};
    std::vector<std::vector<float>> statistics;
    std::vector<std::vector<float>> target;
    on_both([&](DType type) {
        const auto three = device.put(std::vector<float>(kRows * 2 * 3));
        const auto x = device.put(std::vector<float>(kRows));
        device->vocabulary_statistics({.logits = logits.of(type),
                                       .first_column = 16,
                                       .leaves = leaves,
                                       .ids = 83,
                                       .inverse_temperature = temperature,
                                       .targets = targets,
                                       .statistics = three.span(),
                                       .target = x.span()},
                                      device.stream());
        statistics.push_back(device.get(three));
        target.push_back(device.get(x));
        const auto maximum = device.put(std::vector<float>(kRows, 4.0F));
        const auto sum = device.put(std::vector<float>(kRows, 12.0F));
        device->logprob_gradient({.logits = logits.of(type),
                                  .first_column = 16,
                                  .ids = 83,
                                  .inverse_temperature = temperature,
                                  .targets = targets,
                                  .coefficient = coefficient,
                                  .maximum = maximum.span(),
                                  .sum = sum.span()},
                                 device.stream());
    });
    EXPECT_EQ(statistics[0], statistics[1]);
    EXPECT_EQ(target[0], target[1]);
    logits.expect_equal();
}

TEST_P(Bf16OpsTest, RoundingKeepsInfinitiesAndQuietensNans) {
    const float infinity = std::numeric_limits<float>::infinity();
    std::vector<float> values{infinity, -infinity, std::numeric_limits<float>::max(), -0.0F};
    values.resize(40, 1.0F + 0x1p-8F);
    values[33] = std::bit_cast<float>(0x7F800001U);
    values[5] = std::bit_cast<float>(0xFFFFFFFFU);
    const auto from = device.put(values);
    const auto to = device.make<Bf16>(40);
    device->round(
        {.from = Matrix(from.span(), 1, 40),
         .to = {reinterpret_cast<std::byte*>(to.span().handle()), DType::bf16, 1, 40, 40}},
        device.stream());
    EXPECT_EQ(device.get(to), to_bf16(values));
}

TEST_P(Bf16OpsTest, TypesThatDifferAreRefused) {
    const Twin one(device, 4, 8, 1);
    const Twin half(device, 4, 4, 2);
    EXPECT_THROW_WITH(
        device->add({.from = one.of(DType::bf16), .to = one.of(DType::f32)}, device.stream()),
        InternalError, "from is BF16, expected F32");
    EXPECT_THROW_WITH(device->swiglu({.gate_up = one.of(DType::bf16), .out = half.of(DType::f32)},
                                     device.stream()),
                      InternalError, "gate_up is BF16, expected F32");
    EXPECT_THROW_WITH(
        device->round({.from = one.of(DType::bf16), .to = one.of(DType::bf16)}, device.stream()),
        InternalError, "from is BF16, expected F32");
}

}  // namespace
}  // namespace rankwise::test
