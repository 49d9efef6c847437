// RMSNorm on every device: the contract's order bit by bit, and gradients against differences in
// double.
#include "kernels/norm.hpp"

#include <gtest/gtest.h>

#include "tests/support/devices.hpp"
#include "tests/support/reference_norm.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::test {
namespace {

using kernels::Output;

class NormTest : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, NormTest, testing::ValuesIn(device_cases()), device_name);

constexpr float kEps = 1e-5F;
const std::vector<NormShape> kShapes = {{1, 1, 16, 16},    {3, 1, 7, 9},      {5, 4, 24, 101},
                                        {70, 1, 100, 100}, {300, 3, 64, 200}, {0, 1, 8, 8}};

/// Operands of one shape on a device, and what the forward reference makes of them.
struct Norm {
    explicit Norm(const NormShape& s)
        : shape(s),
          x(random_floats(s.rows * s.stride, 1, 2.0F)),
          dy(random_floats(s.rows * s.stride, 2)),
          weight(random_floats(s.size, 3)),
          y(x.size(), -7.0F),
          inv_rms(static_cast<std::size_t>(s.rows * s.groups)) {
        reference_rms_norm(s, x, weight, kEps, y, inv_rms);
    }
    [[nodiscard]] kernels::Matrix of(const kernels::DeviceBuffer<float>& buffer) const {
        return matrix(buffer.span(), shape.rows, shape.groups * shape.size, shape.stride);
    }

    NormShape shape;
    std::vector<float> x;
    std::vector<float> dy;
    std::vector<float> weight;
    std::vector<float> y;
    std::vector<float> inv_rms;
};

TEST_P(NormTest, ForwardIsTheContractsSequenceAndLeavesGapsBetweenRowsAlone) {
    for (const NormShape& shape : kShapes) {
        const Norm norm(shape);
        const auto x = device.put(norm.x);
        const auto weight = device.put(norm.weight);
        const auto y = device.put(std::vector<float>(norm.y.size(), -7.0F));
        const auto inv_rms = device.put(std::vector<float>(norm.inv_rms.size()));
        device->rms_norm({.x = norm.of(x),
                          .groups = shape.groups,
                          .weight = weight.span(),
                          .eps = kEps,
                          .y = norm.of(y),
                          .inv_rms = inv_rms.span()},
                         device.stream());
        EXPECT_EQ(device.get(y), norm.y);
        EXPECT_EQ(device.get(inv_rms), norm.inv_rms);
    }
}

TEST_P(NormTest, ForwardInPlaceWithoutKeepingTheRootsGivesTheSame) {
    const Norm norm({5, 4, 24, 96});
    const auto x = device.put(norm.x);
    const auto weight = device.put(norm.weight);
    device->rms_norm({.x = norm.of(x),
                      .groups = 4,
                      .weight = weight.span(),
                      .eps = kEps,
                      .y = norm.of(x),
                      .inv_rms = {}},
                     device.stream());
    EXPECT_EQ(device.get(x), norm.y);
}

TEST_P(NormTest, ForwardIsNearTheExactValue) {
    const Norm norm({20, 2, 77, 154});
    const auto x = device.put(norm.x);
    const auto weight = device.put(norm.weight);
    device->rms_norm({.x = norm.of(x),
                      .groups = 2,
                      .weight = weight.span(),
                      .eps = kEps,
                      .y = norm.of(x),
                      .inv_rms = {}},
                     device.stream());
    const auto y = device.get(x);
    for (std::int64_t row = 0; row < 40; ++row) {
        double squares = 0.0;
        for (std::int64_t i = 0; i < 77; ++i) {
            const double value = norm.x[static_cast<std::size_t>(row * 77 + i)];
            squares += value * value;
        }
        for (std::int64_t i = 0; i < 77; ++i) {
            const auto at = static_cast<std::size_t>(row * 77 + i);
            const double exact = static_cast<double>(norm.weight[static_cast<std::size_t>(i)]) *
                                 norm.x[at] / std::sqrt(squares / 77 + static_cast<double>(kEps));
            // Five roundings in a lane, the tree's four, mean, root, quotient, two products.
            EXPECT_NEAR(y[at], exact, 8 * 0x1p-24 * std::abs(exact));
        }
    }
}

TEST_P(NormTest, BackwardIsTheContractsSequenceStoredOrAdded) {
    for (const NormShape& shape : kShapes) {
        for (const bool add : {false, true}) {
            const Norm norm(shape);
            std::vector<float> expected = random_floats(shape.rows * shape.stride, 4);
            const auto dx = device.put(expected);
            reference_rms_norm_backward(shape, norm.dy, norm.x, norm.weight, norm.inv_rms, add,
                                        expected);
            const auto x = device.put(norm.x);
            const auto dy = device.put(norm.dy);
            const auto weight = device.put(norm.weight);
            const auto inv_rms = device.put(norm.inv_rms);
            device->rms_norm_backward({.dy = norm.of(dy),
                                       .x = norm.of(x),
                                       .groups = shape.groups,
                                       .weight = weight.span(),
                                       .inv_rms = inv_rms.span(),
                                       .dx = norm.of(dx),
                                       .output = add ? Output::add : Output::store},
                                      device.stream());
            EXPECT_EQ(device.get(dx), expected);
        }
    }
}

TEST_P(NormTest, BackwardMayOverwriteTheGradientThatItReads) {
    const Norm norm({5, 4, 24, 96});
    std::vector<float> expected(norm.x.size());
    reference_rms_norm_backward(norm.shape, norm.dy, norm.x, norm.weight, norm.inv_rms, false,
                                expected);
    const auto x = device.put(norm.x);
    const auto dy = device.put(norm.dy);
    const auto weight = device.put(norm.weight);
    const auto inv_rms = device.put(norm.inv_rms);
    device->rms_norm_backward({.dy = norm.of(dy),
                               .x = norm.of(x),
                               .groups = 4,
                               .weight = weight.span(),
                               .inv_rms = inv_rms.span(),
                               .dx = norm.of(dy)},
                              device.stream());
    EXPECT_EQ(device.get(dy), expected);
}

/// Groups 0 … groups - 1 dealt to the leaves of a tree.
Contraction dealt(std::vector<int> radices, std::int64_t groups) {
    return Contraction::of_leaves(ReductionTree{std::move(radices)}, groups, 1);
}

TEST_P(NormTest, WeightGradientAddsRowsGroupsAndBlocksInTheContractsOrder) {
    struct Case {
        NormShape shape;
        std::vector<std::int64_t> blocks;
        Contraction order;
    };
    Contraction backwards{{{2}}, {{{4, 6}, {1, 2}}, {{0, 1}, {2, 4}}}};
    const std::vector<Case> cases = {
        {{130, 1, 100, 101}, {0, 64, 128, 130}, Contraction::straight(1)},
        {{300, 14, 20, 280}, {0, 30, 94, 158, 222, 286, 300}, dealt({2, 7}, 14)},
        {{65, 3, 33, 99}, {0, 64, 65}, dealt({2, 2}, 3)},  // an empty leaf
        {{10, 6, 16, 96}, {0, 10}, backwards},
        {{0, 2, 16, 32}, {0}, dealt({2}, 2)},
    };
    for (const Case& c : cases) {
        for (const Output output : {Output::store, Output::add, Output::resume}) {
            const Norm norm(c.shape);
            std::vector<float> expected = random_floats(c.shape.size, 5);
            const auto dw = device.put(expected);
            reference_rms_norm_weight_gradient(c.shape, norm.dy, norm.x, norm.inv_rms, c.blocks,
                                               c.order, output, expected);
            const auto x = device.put(norm.x);
            const auto dy = device.put(norm.dy);
            const auto inv_rms = device.put(norm.inv_rms);
            device->rms_norm_weight_gradient({.dy = norm.of(dy),
                                              .x = norm.of(x),
                                              .groups = c.shape.groups,
                                              .group_order = c.order,
                                              .inv_rms = inv_rms.span(),
                                              .blocks = c.blocks,
                                              .dw = dw.span(),
                                              .output = output},
                                             device.stream());
            EXPECT_EQ(device.get(dw), expected);
        }
    }
}

TEST_P(NormTest, GradientsAreThoseOfDifferencesInDouble) {
    const Norm norm({4, 2, 12, 24});
    const auto x = device.put(norm.x);
    const auto dy = device.put(norm.dy);
    const auto weight = device.put(norm.weight);
    const auto inv_rms = device.put(norm.inv_rms);
    const auto dx = device.make<float>(x.size());
    const auto dw = device.make<float>(12);
    const std::vector<std::int64_t> blocks = {0, 4};
    device->rms_norm_backward({.dy = norm.of(dy),
                               .x = norm.of(x),
                               .groups = 2,
                               .weight = weight.span(),
                               .inv_rms = inv_rms.span(),
                               .dx = norm.of(dx)},
                              device.stream());
    device->rms_norm_weight_gradient({.dy = norm.of(dy),
                                      .x = norm.of(x),
                                      .groups = 2,
                                      .group_order = dealt({2}, 2),
                                      .inv_rms = inv_rms.span(),
                                      .blocks = blocks,
                                      .dw = dw.span()},
                                     device.stream());
    const std::vector<double> x_double(norm.x.begin(), norm.x.end());
    const std::vector<double> w_double(norm.weight.begin(), norm.weight.end());
    const double eps = static_cast<double>(kEps);
    const auto loss = [&](const std::vector<double>& at_x, const std::vector<double>& at_w) {
        return double_norm_loss(norm.shape, at_x, at_w, eps, norm.dy);
    };
    constexpr double kStep = 1e-5;
    const auto moved = [](std::vector<double> values, std::size_t i, double by) {
        values[i] += by;
        return values;
    };
    const auto got_dx = device.get(dx);
    for (std::size_t i = 0; i < got_dx.size(); ++i) {
        const double above = loss(moved(x_double, i, kStep), w_double);
        const double below = loss(moved(x_double, i, -kStep), w_double);
        EXPECT_NEAR(got_dx[i], (above - below) / (2 * kStep), 2e-6);
    }
    const auto got_dw = device.get(dw);
    for (std::size_t i = 0; i < got_dw.size(); ++i) {
        const double above = loss(x_double, moved(w_double, i, kStep));
        const double below = loss(x_double, moved(w_double, i, -kStep));
        EXPECT_NEAR(got_dw[i], (above - below) / (2 * kStep), 5e-6);
    }
}

TEST_P(NormTest, SizesThatDoNotFitAreRefusedByName) {
    const Norm norm({4, 2, 12, 24});
    const auto x = device.put(norm.x);
    const auto weight = device.put(norm.weight);
    const auto inv_rms = device.put(norm.inv_rms);
    auto& stream = device.stream();
    kernels::RmsNormArgs good{.x = norm.of(x),
                              .groups = 2,
                              .weight = weight.span(),
                              .eps = kEps,
                              .y = norm.of(x),
                              .inv_rms = inv_rms.span()};
    auto args = good;
    args.groups = 5;
    EXPECT_THROW_WITH(device->rms_norm(args, stream), InternalError, "24 columns in 5 groups");
    args = good;
    args.groups = 3;
    EXPECT_THROW_WITH(device->rms_norm(args, stream), InternalError,
                      "weight has 12 elements, expected 8");
    args = good;
    args.y = as_bf16(args.y);
    EXPECT_THROW_WITH(device->rms_norm(args, stream), InternalError, "y is BF16");
    args = good;
    args.y.rows = 3;
    EXPECT_THROW_WITH(device->rms_norm(args, stream), InternalError,
                      "y is 3 x 24, expected 4 x 24");
    args = good;
    args.x.stride = 20;
    EXPECT_THROW_WITH(device->rms_norm(args, stream), InternalError, "20 apart");
    args = good;
    args.inv_rms = inv_rms.span().subspan(1);
    EXPECT_THROW_WITH(device->rms_norm(args, stream), InternalError, "inv_rms has 7");
}

TEST_P(NormTest, BackwardRefusesWhatDoesNotFit) {
    const Norm norm({4, 2, 12, 24});
    const auto x = device.put(norm.x);
    const auto weight = device.put(norm.weight);
    const auto inv_rms = device.put(norm.inv_rms);
    auto& stream = device.stream();
    kernels::RmsNormBackwardArgs args{.dy = norm.of(x),
                                      .x = norm.of(x),
                                      .groups = 2,
                                      .weight = weight.span(),
                                      .inv_rms = inv_rms.span(),
                                      .dx = norm.of(x),
                                      .output = Output::resume};
    EXPECT_THROW_WITH(device->rms_norm_backward(args, stream), InternalError, "no sum to resume");
    args.output = Output::store;
    args.inv_rms = {};
    EXPECT_THROW_WITH(device->rms_norm_backward(args, stream), InternalError, "inv_rms has 0");
}

TEST_P(NormTest, WeightGradientRefusesBlocksAndOrdersThatDoNotCover) {
    const Norm norm({4, 2, 12, 24});
    const auto x = device.put(norm.x);
    const auto inv_rms = device.put(norm.inv_rms);
    const auto dw = device.make<float>(12);
    auto& stream = device.stream();
    const std::vector<std::int64_t> good = {0, 4};
    kernels::RmsNormWeightGradientArgs args{.dy = norm.of(x),
                                            .x = norm.of(x),
                                            .groups = 2,
                                            .group_order = dealt({2}, 2),
                                            .inv_rms = inv_rms.span(),
                                            .blocks = good,
                                            .dw = dw.span()};
    for (const std::vector<std::int64_t>& blocks :
         {std::vector<std::int64_t>{}, {0}, {0, 3}, {1, 4}, {0, 2, 2, 4}, {0, 5, 4}}) {
        args.blocks = blocks;
        EXPECT_THROW_WITH(device->rms_norm_weight_gradient(args, stream), InternalError,
                          "do not ascend from 0 to the 4 rows");
    }
    args.blocks = good;
    for (const Contraction& order : {Contraction::straight(1), Contraction{{}, {{{0, 1}, {0, 1}}}},
                                     Contraction{{}, {{{1, 3}}}}, Contraction{{{2}}, {{{0, 2}}}}}) {
        args.group_order = order;
        EXPECT_THROW_WITH(device->rms_norm_weight_gradient(args, stream), InternalError,
                          "does not hold 2 groups, each once");
    }
}

}  // namespace
}  // namespace rankwise::test
