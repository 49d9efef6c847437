#include "src/model/norm_gradients.hpp"

#include <array>

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

/// A norm's gradient of each block of rows, from zero: [blocks, size].
Matrix block_sums(Compute& compute, const kernels::RmsNormWeightGradientArgs& args) {
    const std::int64_t blocks = std::ssize(args.blocks) - 1;
    const std::int64_t size = args.dw.size();
    const Matrix sums = compute.matrix(blocks, size);
    for (std::int64_t b = 0; b < blocks; ++b) {
        const Range rows{args.blocks[static_cast<std::size_t>(b)],
                         args.blocks[static_cast<std::size_t>(b) + 1]};
        const std::array<std::int64_t, 2> borders{0, rows.size()};
        kernels::RmsNormWeightGradientArgs block = args;
        block.dy = args.dy.row_range(rows);
        block.x = args.x.row_range(rows);
        block.inv_rms = args.inv_rms.subspan(rows.begin * args.groups, rows.size() * args.groups);
        block.blocks = borders;
        block.dw = {reinterpret_cast<float*>(sums.row_range({b, b + 1}).handle), size};
        block.output = Output::store;
        compute.device.rms_norm_weight_gradient(block, compute.stream);
    }
    return sums;
}

/// The end of a norm's gradient: the sums of all blocks, ascending.
void add_blocks(Compute& compute, ConstMatrix sums, const GradientSlot& slot) {
    compute.device.bias_gradient({.dy = sums, .db = slot.vector(), .output = slot.output},
                                 compute.stream);
}

/// The gradient of a norm's weight where each rank has blocks of the rows.
void gathered_norm_gradient(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                            std::span<const std::int64_t> blocks,
                            kernels::RmsNormWeightGradientArgs args, const GradientSlot& slot) {
    const kernels::Arena::Scope scope(compute.arena);
    const Range own = tokens.blocks();
    std::vector<std::int64_t> borders;
    for (std::int64_t b = own.begin; b <= own.end; ++b)
        borders.push_back(blocks[static_cast<std::size_t>(b)] - tokens.mine().begin);
    args.blocks = borders;
    const Matrix mine = block_sums(compute, args);
    const Matrix all = compute.matrix(std::ssize(blocks) - 1, mine.cols);
    sums::all_gather(compute.tools(), weights.tensor(), "sums:norms", tokens.blocks_of_ranks(),
                     mine, all);
    add_blocks(compute, all, slot);
}

}  // namespace

void norm_gradient(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                   ConstMatrix dy, ConstMatrix x, DeviceSpan<const float> inv_rms,
                   std::span<const std::int64_t> blocks, ParameterId id,
                   WeightGradients& gradients) {
    gradients.add([&compute, &weights, tokens, dy, x, inv_rms, blocks, id](GradientSink& sink) {
        const GradientSlot slot = sink.slot(id);
        const kernels::RmsNormWeightGradientArgs args{.dy = dy,
                                                      .x = x,
                                                      .inv_rms = inv_rms,
                                                      .blocks = blocks,
                                                      .dw = slot.vector(),
                                                      .output = slot.output};
        if (tokens.split()) {
            gathered_norm_gradient(compute, weights, tokens, blocks, args, slot);
        } else {
            compute.device.rms_norm_weight_gradient(args, compute.stream);
        }
    });
}

void head_norm_gradient(Compute& compute, const Weights& weights, const sums::RankTree& ranks,
                        const kernels::RmsNormWeightGradientArgs& args, const GradientSlot& slot) {
    const kernels::Arena::Scope scope(compute.arena);
    const bool here = ranks.present[static_cast<std::size_t>(weights.part().place.rank)];
    const Matrix partial = here ? block_sums(compute, args) : Matrix();
    const Matrix total = compute.matrix(std::ssize(args.blocks) - 1, args.dw.size());
    sums::all_reduce(compute.tools(), weights.tensor(), "sums:head norms", ranks, partial, total);
    add_blocks(compute, total, slot);
}

}  // namespace rankwise::model
