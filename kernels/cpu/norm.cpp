#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/norm_kernels.hpp"

#include <vector>

#include "kernels/cpu/checks.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/row_split.hpp"
#include "src/base/tree_sum.hpp"

namespace rankwise::kernels::cpu {
namespace {

template <class Element>
const NormKernels<Element>& kernels_of(Isa isa) {
    return has_avx512(isa) ? avx512::norm_kernels<Element>() : avx2::norm_kernels<Element>();
}

/// Columns of a group; checks that the groups share the columns evenly.
std::int64_t group_size(const char* op, const ConstMatrix& x, std::int64_t groups) {
    ensure(groups > 0 && x.cols % groups == 0 && x.cols > 0, "{}: {} columns in {} groups", op,
           x.cols, groups);
    return x.cols / groups;
}

void ensure_blocks(std::span<const std::int64_t> blocks, std::int64_t rows) {
    bool good = rows == 0 || (blocks.size() >= 2 && blocks.front() == 0 && blocks.back() == rows);
    for (std::size_t b = 1; b < blocks.size(); ++b) good = good && blocks[b - 1] < blocks[b];
    ensure(good || rows == 0,
           "rms_norm_weight_gradient: {} block borders do not ascend from 0 to the {} rows",
           blocks.size(), rows);
}

void ensure_order(const Contraction& order, std::int64_t groups) {
    std::vector<bool> seen(static_cast<std::size_t>(groups), false);
    bool good =
        static_cast<int>(order.leaves.size()) == order.tree.leaves() && order.size() == groups;
    for (const auto& leaf : order.leaves) {
        for (Range range : leaf) {
            for (std::int64_t g = range.begin; g < range.end; ++g) {
                good = good && g >= 0 && g < groups && !seen[static_cast<std::size_t>(g)];
                if (good) seen[static_cast<std::size_t>(g)] = true;
            }
        }
    }
    ensure(good,
           "rms_norm_weight_gradient: the order of the groups does not hold {} groups, each once",
           groups);
}

void add_to(float* to, const float* from, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = to[i] + from[i];
}

/// The groups' sums of one block combined into its first `size` sums' place of the leaf that holds
/// the total.
const float* combine_groups(const Contraction& order, float* sums, std::int64_t size) {
    const auto first_group = [&](int leaf) {
        for (Range range : order.leaves[static_cast<std::size_t>(leaf)]) {
            if (!range.empty()) return range.begin;
        }
        return std::int64_t{-1};
    };
    for (int leaf = 0; leaf < order.tree.leaves(); ++leaf) {
        const std::int64_t first = first_group(leaf);
        for (Range range : order.leaves[static_cast<std::size_t>(leaf)]) {
            for (std::int64_t g = range.begin; g < range.end; ++g) {
                if (g != first) add_to(sums + first * size, sums + g * size, size);
            }
        }
    }
    const int total = tree_sum(
        order.tree, [&](int leaf) { return first_group(leaf) >= 0; },
        [&](int to, int from) {
            add_to(sums + first_group(to) * size, sums + first_group(from) * size, size);
        });
    return sums + first_group(total) * size;
}

}  // namespace

void CpuDevice::rms_norm(const RmsNormArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.x.rows;
    const std::int64_t groups = args.groups;
    const std::int64_t size = group_size("rms_norm", args.x, groups);
    ensure_matrix("rms_norm", "x", args.x, rows, groups * size, args.x.dtype);
    ensure_matrix("rms_norm", "y", args.y, rows, groups * size, args.x.dtype);
    ensure_size("rms_norm", "weight", args.weight.size(), size);
    if (!args.inv_rms.empty())
        ensure_size("rms_norm", "inv_rms", args.inv_rms.size(), rows * groups);
    const float* weight = at(args.weight);
    float* inv_rms = args.inv_rms.empty() ? nullptr : at(args.inv_rms);
    with_elements(args.x.dtype, [&]<class Element>(Element /*element*/) {
        const NormKernels<Element>& kernels = kernels_of<Element>(isa_);
        const auto* x = elements<Element>(args.x);
        auto* y = elements<Element>(args.y);
        for_row_ranges(*team_, rows, 2 * groups * size, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                kernels.forward(x + t * args.x.stride, weight, groups, size, args.eps,
                                y + t * args.y.stride,
                                inv_rms == nullptr ? nullptr : inv_rms + t * groups);
            }
        });
    });
}

void CpuDevice::rms_norm_backward(const RmsNormBackwardArgs& args, Stream& /*stream*/) {
    const std::int64_t rows = args.x.rows;
    const std::int64_t groups = args.groups;
    const std::int64_t size = group_size("rms_norm_backward", args.x, groups);
    ensure_matrix("rms_norm_backward", "x", args.x, rows, groups * size, args.x.dtype);
    ensure_matrix("rms_norm_backward", "dy", args.dy, rows, groups * size, args.x.dtype);
    ensure_matrix("rms_norm_backward", "dx", args.dx, rows, groups * size, args.x.dtype);
    ensure_size("rms_norm_backward", "weight", args.weight.size(), size);
    ensure_size("rms_norm_backward", "inv_rms", args.inv_rms.size(), rows * groups);
    ensure(args.output != Output::resume, "rms_norm_backward: there is no sum to resume");
    const float* weight = at(args.weight);
    const float* inv_rms = at(args.inv_rms);
    with_elements(args.x.dtype, [&]<class Element>(Element /*element*/) {
        const NormKernels<Element>& kernels = kernels_of<Element>(isa_);
        const auto* dy = elements<Element>(args.dy);
        const auto* x = elements<Element>(args.x);
        auto* dx = elements<Element>(args.dx);
        for_row_ranges(*team_, rows, 3 * groups * size, [&](Range range) {
            for (std::int64_t t = range.begin; t < range.end; ++t) {
                kernels.backward(dy + t * args.dy.stride, x + t * args.x.stride, weight,
                                 inv_rms + t * groups, groups, size, dx + t * args.dx.stride,
                                 args.output == Output::add);
            }
        });
    });
}

void CpuDevice::rms_norm_weight_gradient(const RmsNormWeightGradientArgs& args,
                                         Stream& /*stream*/) {
    const std::int64_t rows = args.x.rows;
    const std::int64_t groups = args.groups;
    const std::int64_t size = group_size("rms_norm_weight_gradient", args.x, groups);
    ensure_matrix("rms_norm_weight_gradient", "x", args.x, rows, groups * size, args.x.dtype);
    ensure_matrix("rms_norm_weight_gradient", "dy", args.dy, rows, groups * size, args.x.dtype);
    ensure_size("rms_norm_weight_gradient", "inv_rms", args.inv_rms.size(), rows * groups);
    ensure_size("rms_norm_weight_gradient", "dw", args.dw.size(), size);
    ensure_blocks(args.blocks, rows);
    ensure_order(args.group_order, groups);
    const float* inv_rms = at(args.inv_rms);
    float* dw = at(args.dw);
    const std::int64_t blocks = rows == 0 ? 0 : static_cast<std::int64_t>(args.blocks.size()) - 1;
    // Each block's sums, then (a block's groups combined) where its total lies.
    static thread_local std::vector<float> sums;
    static thread_local std::vector<const float*> totals;
    sums.resize(static_cast<std::size_t>(blocks * groups * size));
    totals.resize(static_cast<std::size_t>(blocks));
    float* const block_sums = sums.data();
    const float** const block_totals = totals.data();
    with_elements(args.x.dtype, [&]<class Element>(Element /*element*/) {
        const NormKernels<Element>& kernels = kernels_of<Element>(isa_);
        const auto* dy = elements<Element>(args.dy);
        const auto* x = elements<Element>(args.x);
        for_row_ranges(*team_, blocks, std::int64_t{128} * groups * size, [&](Range range) {
            for (std::int64_t b = range.begin; b < range.end; ++b) {
                const std::int64_t first = args.blocks[static_cast<std::size_t>(b)];
                const std::int64_t count = args.blocks[static_cast<std::size_t>(b) + 1] - first;
                float* const here = block_sums + b * groups * size;
                kernels.weight_gradient(dy + first * args.dy.stride, args.dy.stride,
                                        x + first * args.x.stride, args.x.stride,
                                        inv_rms + first * groups, count, groups, size, here);
                block_totals[b] = combine_groups(args.group_order, here, size);
            }
        });
    });
    for_row_ranges(*team_, size, blocks, [&](Range range) {
        for (std::int64_t i = range.begin; i < range.end; ++i) {
            float total = args.output == Output::resume ? dw[i] : 0.0F;
            for (std::int64_t b = 0; b < blocks; ++b) total = total + block_totals[b][i];
            dw[i] = args.output == Output::add ? dw[i] + total : total;
        }
    });
}

}  // namespace rankwise::kernels::cpu
