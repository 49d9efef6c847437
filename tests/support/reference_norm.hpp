// RMSNorm in plain loops: in float, in the contract's order; and forward in double.
#pragma once

#include <span>

#include "kernels/norm.hpp"
#include "tests/support/op_test.hpp"

namespace rankwise::test {

struct NormShape {
    std::int64_t rows;
    std::int64_t groups;
    std::int64_t size;
    std::int64_t stride;
    [[nodiscard]] std::int64_t at(std::int64_t t, std::int64_t g, std::int64_t i) const {
        return t * stride + g * size + i;
    }
};

/// y (laid out as x) and r [rows * groups].
inline void reference_rms_norm(const NormShape& shape, const std::vector<float>& x,
                               const std::vector<float>& weight, float eps, std::vector<float>& y,
                               std::vector<float>& inv_rms) {
    for (std::int64_t t = 0; t < shape.rows; ++t) {
        for (std::int64_t g = 0; g < shape.groups; ++g) {
            LaneSum<float> squares;
            for (std::int64_t i = 0; i < shape.size; ++i) {
                const float value = x[static_cast<std::size_t>(shape.at(t, g, i))];
                squares.add(i, value, value);
            }
            const float mean = squares.total() / static_cast<float>(shape.size);
            const float r = 1.0F / std::sqrt(mean + eps);
            inv_rms[static_cast<std::size_t>(t * shape.groups + g)] = r;
            for (std::int64_t i = 0; i < shape.size; ++i) {
                const auto at = static_cast<std::size_t>(shape.at(t, g, i));
                y[at] = weight[static_cast<std::size_t>(i)] * (x[at] * r);
            }
        }
    }
}

inline void reference_rms_norm_backward(const NormShape& shape, const std::vector<float>& dy,
                                        const std::vector<float>& x,
                                        const std::vector<float>& weight,
                                        const std::vector<float>& inv_rms, bool add,
                                        std::vector<float>& dx) {
    for (std::int64_t t = 0; t < shape.rows; ++t) {
        for (std::int64_t g = 0; g < shape.groups; ++g) {
            LaneSum<float> products;
            for (std::int64_t i = 0; i < shape.size; ++i) {
                const auto at = static_cast<std::size_t>(shape.at(t, g, i));
                products.add(i, weight[static_cast<std::size_t>(i)] * dy[at], x[at]);
            }
            const float r = inv_rms[static_cast<std::size_t>(t * shape.groups + g)];
            const float pull = r * r * r * (products.total() / static_cast<float>(shape.size));
            for (std::int64_t i = 0; i < shape.size; ++i) {
                const auto at = static_cast<std::size_t>(shape.at(t, g, i));
                const float value =
                    std::fma(-x[at], pull, weight[static_cast<std::size_t>(i)] * dy[at] * r);
                dx[at] = add ? dx[at] + value : value;
            }
        }
    }
}

/// One element of a tree's node: leaves that are not there are skipped.
struct MaybeSum {
    bool there = false;
    float value = 0.0F;
    void add(const MaybeSum& other) {
        if (!other.there) return;
        value = there ? value + other.value : other.value;
        there = true;
    }
};

inline MaybeSum reference_tree(const ReductionTree& tree, std::span<const MaybeSum> leaves) {
    if (tree.radices.empty()) return leaves[0];
    const ReductionTree child{{tree.radices.begin() + 1, tree.radices.end()}};
    const auto each = static_cast<std::size_t>(child.leaves());
    MaybeSum sum;
    for (std::size_t c = 0; c < static_cast<std::size_t>(tree.radices[0]); ++c) {
        sum.add(reference_tree(child, leaves.subspan(c * each, each)));
    }
    return sum;
}

inline void reference_rms_norm_weight_gradient(const NormShape& shape, const std::vector<float>& dy,
                                               const std::vector<float>& x,
                                               const std::vector<float>& inv_rms,
                                               const std::vector<std::int64_t>& blocks,
                                               const Contraction& order, kernels::Output output,
                                               std::vector<float>& dw) {
    for (std::int64_t i = 0; i < shape.size; ++i) {
        float& out = dw[static_cast<std::size_t>(i)];
        float total = output == kernels::Output::resume ? out : 0.0F;
        for (std::size_t b = 0; b + 1 < blocks.size(); ++b) {
            std::vector<MaybeSum> leaves(order.leaves.size());
            for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
                for (Range range : order.leaves[leaf]) {
                    for (std::int64_t g = range.begin; g < range.end; ++g) {
                        MaybeSum sum{true, 0.0F};
                        for (std::int64_t t = blocks[b]; t < blocks[b + 1]; ++t) {
                            const auto at = static_cast<std::size_t>(shape.at(t, g, i));
                            const float r = inv_rms[static_cast<std::size_t>(t * shape.groups + g)];
                            sum.value = std::fma(dy[at], x[at] * r, sum.value);
                        }
                        leaves[leaf].add(sum);
                    }
                }
            }
            total += reference_tree(order.tree, leaves).value;
        }
        out = output == kernels::Output::add ? out + total : total;
    }
}

/// sum of dy * y in double, for differences.
inline double double_norm_loss(const NormShape& shape, const std::vector<double>& x,
                               const std::vector<double>& weight, double eps,
                               const std::vector<float>& dy) {
    double loss = 0.0;
    for (std::int64_t t = 0; t < shape.rows; ++t) {
        for (std::int64_t g = 0; g < shape.groups; ++g) {
            double squares = 0.0;
            for (std::int64_t i = 0; i < shape.size; ++i) {
                const double value = x[static_cast<std::size_t>(shape.at(t, g, i))];
                squares += value * value;
            }
            const double r = 1.0 / std::sqrt(squares / static_cast<double>(shape.size) + eps);
            for (std::int64_t i = 0; i < shape.size; ++i) {
                const auto at = static_cast<std::size_t>(shape.at(t, g, i));
                loss +=
                    static_cast<double>(dy[at]) * weight[static_cast<std::size_t>(i)] * x[at] * r;
            }
        }
    }
    return loss;
}

}  // namespace rankwise::test
