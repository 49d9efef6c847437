#include "src/model/head.hpp"

#include <algorithm>
#include <vector>

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

std::vector<float> inverse_temperatures(const HeadOptions& options, std::int64_t rows) {
    const float inverse = options.temperature == 0.0F ? 1.0F : 1.0F / options.temperature;
    return std::vector<float>(static_cast<std::size_t>(rows), inverse);
}

std::vector<TokenId> targets_of(const Microbatch& batch) {
    std::vector<TokenId> targets;
    targets.reserve(batch.head.size());
    for (const HeadRow& row : batch.head) targets.push_back(row.target);
    return targets;
}

std::vector<std::int64_t> rows_of(const Microbatch& batch) {
    std::vector<std::int64_t> rows;
    rows.reserve(batch.head.size());
    for (const HeadRow& row : batch.head) rows.push_back(row.row);
    return rows;
}

/// Sums tiles of the vocabulary into dhidden by the tree: a leaf's accumulators rest in one buffer
/// from tile to tile, finished nodes in one buffer a level (N2).
class LeafSums {
  public:
    LeafSums(Compute& compute, const ReductionTree& tree, Matrix total)
        : compute_(compute), tree_(tree), total_(total) {
        for (std::size_t level = 0; level < tree.radices.size(); ++level) {
            nodes_.push_back(compute.matrix(total.rows, total.cols));
            filled_.push_back(false);
        }
        leaf_ = tree.radices.empty() ? total : compute.matrix(total.rows, total.cols);
    }
    [[nodiscard]] Matrix leaf() const { return leaf_; }

    /// Leaf `index` is summed in leaf() (or, `empty`, has no terms).
    void leaf_done(int index, bool empty) {
        if (tree_.radices.empty()) return;
        Matrix value = leaf_;
        bool has_value = !empty;
        int position = index;
        for (std::size_t level = tree_.radices.size(); level-- > 0;) {
            const int radix = tree_.radices[level];
            const int child = position % radix;
            position /= radix;
            if (child == 0) filled_[level] = false;
            if (has_value) {
                if (filled_[level]) {
                    compute_.device.add({.from = value, .to = nodes_[level]}, compute_.stream);
                } else {
                    compute_.copy(value, nodes_[level]);
                    filled_[level] = true;
                }
            }
            if (child != radix - 1) return;
            value = nodes_[level];
            has_value = filled_[level];
        }
        ensure(has_value, "a sum over the vocabulary without any terms");
        compute_.copy(value, total_);
    }

  private:
    Compute& compute_;
    const ReductionTree& tree_;
    Matrix total_;
    Matrix leaf_;
    std::vector<Matrix> nodes_;
    std::vector<bool> filled_;
};

}  // namespace

void head_logprobs(Compute& compute, const Weights& weights, const HeadOptions& options,
                   ConstMatrix hidden, const ChooseTargets& choose, const LogprobSpans& out) {
    const ModelConfig& config = weights.config();
    kernels::Device& device = compute.device;
    const std::int64_t rows = hidden.rows;
    ReductionTree tree = config.tree();
    if (options.break_order) tree.radices = {tree.leaves()};
    const std::vector<Range> leaves = vocabulary_leaves(config);
    const auto leaf_count = static_cast<std::int64_t>(leaves.size());
    const std::vector<float> inverse = inverse_temperatures(options, rows);
    const std::int64_t row_bytes = config.vocab_size * size_of(DType::f32);
    const std::int64_t block = std::clamp<std::int64_t>(options.block_bytes / row_bytes, 1,
                                                        std::max<std::int64_t>(rows, 1));
    const kernels::Arena::Scope scope(compute.arena);
    const Matrix logits = compute.matrix(block, config.vocab_size);
    const DeviceSpan<float> statistics = compute.arena.take<float>(block * leaf_count * 3);
    const DeviceSpan<float> target = compute.arena.take<float>(block);
    const auto part_of = [](DeviceSpan<float> span, std::int64_t begin, std::int64_t count) {
        return span.empty() ? span : span.subspan(begin, count);
    };
    for (std::int64_t begin = 0; begin < rows; begin += block) {
        const std::int64_t count = std::min(block, rows - begin);
        const Range range{begin, begin + count};
        const Matrix some = logits.row_range({0, count});
        device.matmul({.x = hidden.row_range(range), .w = weights.packed_head(), .y = some},
                      compute.stream);
        const DeviceSpan<float> some_statistics = statistics.subspan(0, count * leaf_count * 3);
        device.vocabulary_statistics(
            {.logits = some,
             .leaves = leaves,
             .ids = options.ids,
             .inverse_temperature = std::span(inverse).subspan(static_cast<std::size_t>(begin),
                                                               static_cast<std::size_t>(count)),
             .targets = choose(range, some),
             .statistics = some_statistics,
             .target = target.subspan(0, count)},
            compute.stream);
        device.merge_statistics({.statistics = some_statistics,
                                 .tree = tree,
                                 .rows = count,
                                 .target = target.subspan(0, count),
                                 .logprob = out.logprob.subspan(begin, count),
                                 .entropy = part_of(out.entropy, begin, count),
                                 .maximum = part_of(out.maximum, begin, count),
                                 .sum = out.sum.subspan(begin, count)},
                                compute.stream);
    }
}

HeadOutputs head_forward(Compute& compute, const Weights& weights, const HeadOptions& options,
                         const Microbatch& batch, ConstMatrix x) {
    const ModelConfig& config = weights.config();
    kernels::Device& device = compute.device;
    const auto rows = static_cast<std::int64_t>(batch.head.size());
    HeadOutputs out;
    out.logprob = compute.arena.take<float>(rows);
    out.entropy = compute.arena.take<float>(rows);
    out.maximum = compute.arena.take<float>(rows);
    out.sum = compute.arena.take<float>(rows);
    out.hidden = compute.matrix(rows, config.hidden);
    out.normed = compute.matrix(x.rows, config.hidden);
    out.inv_rms = compute.arena.take<float>(x.rows);
    device.rms_norm({.x = x,
                     .weight = weights.final_norm(),
                     .eps = static_cast<float>(config.rms_norm_eps),
                     .y = out.normed,
                     .inv_rms = out.inv_rms},
                    compute.stream);
    device.gather_rows({.from = out.normed, .rows = rows_of(batch), .to = out.hidden},
                       compute.stream);

    const std::vector<TokenId> targets = targets_of(batch);
    const ChooseTargets known = [&](Range some, ConstMatrix) {
        return std::span(targets).subspan(static_cast<std::size_t>(some.begin),
                                          static_cast<std::size_t>(some.size()));
    };
    head_logprobs(compute, weights, options, out.hidden, known, out);
    return out;
}

void head_backward(Compute& compute, const Weights& weights, const HeadOptions& options,
                   const Microbatch& batch, ConstMatrix x, const HeadOutputs& kept,
                   std::span<const float> coefficient, Matrix dx, GradientSink& gradients) {
    const kernels::Arena::Scope scope(compute.arena);
    const ModelConfig& config = weights.config();
    kernels::Device& device = compute.device;
    const std::int64_t rows = kept.hidden.rows;
    const std::vector<TokenId> targets = targets_of(batch);
    const std::vector<float> inverse = inverse_temperatures(options, rows);
    const std::vector<Range> leaves = vocabulary_leaves(config);
    const ReductionTree tree = config.tree();

    // A multiple of 16 columns, so that lanes and leaves keep their places.
    const std::int64_t fitting =
        options.block_bytes / (std::max<std::int64_t>(rows, 1) * size_of(DType::f32));
    const std::int64_t tile = std::max<std::int64_t>(64, fitting / 16 * 16);
    const Matrix dhidden = compute.matrix(rows, config.hidden);
    LeafSums sums(compute, tree, dhidden);
    const GradientSlot head = gradients.slot(weights.parameters().head);
    for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
        bool started = false;
        for (std::int64_t begin = leaves[leaf].begin; begin < leaves[leaf].end; begin += tile) {
            const kernels::Arena::Scope tile_scope(compute.arena);
            const Range columns{begin, std::min(begin + tile, leaves[leaf].end)};
            const kernels::PackSpec forward{DType::f32, columns.size(),
                                            Contraction::straight(config.hidden)};
            const kernels::PackSpec backward{DType::f32, config.hidden,
                                             Contraction::straight(columns.size())};
            const ConstMatrix rows_of_tile = weights.head().row_range(columns);
            const DeviceSpan<std::byte> packed = compute.arena.take<std::byte>(
                std::max(device.packed_bytes(forward), device.packed_bytes(backward)));
            const Matrix logits = compute.matrix(rows, columns.size());
            device.pack(forward, kernels::PackSide::outputs, std::span(&rows_of_tile, 1),
                        packed.subspan(0, device.packed_bytes(forward)), compute.stream);
            device.matmul({.x = kept.hidden,
                           .w = {&forward, packed.subspan(0, device.packed_bytes(forward))},
                           .y = logits},
                          compute.stream);
            device.logprob_gradient({.logits = logits,
                                     .first_column = columns.begin,
                                     .ids = options.ids,
                                     .inverse_temperature = inverse,
                                     .targets = targets,
                                     .coefficient = coefficient,
                                     .maximum = kept.maximum,
                                     .sum = kept.sum},
                                    compute.stream);
            device.weight_gradient({.dy = logits,
                                    .x = kept.hidden,
                                    .dw = head.matrix.row_range(columns),
                                    .output = head.output},
                                   compute.stream);
            device.pack(backward, kernels::PackSide::inputs, std::span(&rows_of_tile, 1),
                        packed.subspan(0, device.packed_bytes(backward)), compute.stream);
            device.matmul({.x = logits,
                           .w = {&backward, packed.subspan(0, device.packed_bytes(backward))},
                           .y = sums.leaf(),
                           .output = started ? Output::resume : Output::store},
                          compute.stream);
            started = true;
        }
        sums.leaf_done(narrow<int>(leaf), !started);
    }

    const Matrix dnormed = compute.matrix(x.rows, config.hidden);
    device.scatter_rows({.from = dhidden, .rows = rows_of(batch), .to = dnormed}, compute.stream);
    const GradientSlot norm = gradients.slot(weights.parameters().final_norm);
    device.rms_norm_weight_gradient({.dy = dnormed,
                                     .x = x,
                                     .inv_rms = kept.inv_rms,
                                     .blocks = batch.norm_blocks,
                                     .dw = norm.vector(),
                                     .output = norm.output},
                                    compute.stream);
    device.rms_norm_backward(
        {.dy = dnormed, .x = x, .weight = weights.final_norm(), .inv_rms = kept.inv_rms, .dx = dx},
        compute.stream);
    gradients.head_done();
}

}  // namespace rankwise::model
