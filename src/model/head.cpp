#include "src/model/head.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include "src/model/embedding.hpp"

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
    targets.reserve(batch.head.size() + batch.further.size());
    for (const HeadRow& row : batch.head) targets.push_back(row.target);
    for (const HeadRow& row : batch.further) targets.push_back(row.target);
    return targets;
}

std::vector<std::int64_t> rows_of(const Microbatch& batch) {
    std::vector<std::int64_t> rows;
    rows.reserve(batch.head.size());
    for (const HeadRow& row : batch.head) rows.push_back(row.row);
    return rows;
}

bool keeps_logits(const HeadOptions& options, std::int64_t rows, std::int64_t vocabulary) {
    if (options.logits == LogitsUse::automatic)
        return rows * vocabulary * size_of(DType::f32) <= 4 * options.block_bytes;
    return options.logits == LogitsUse::buffer;
}

/// Borders of what pairs of tokens do not straddle, among all rows of the head (N1).
std::vector<std::int64_t> borders_of(const Microbatch& batch) {
    std::vector<std::int64_t> borders = batch.head_borders;
    for (std::size_t i = 1; i < batch.further_borders.size(); ++i)
        borders.push_back(std::ssize(batch.head) + batch.further_borders[i]);
    return borders;
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

/// What one rank of the tensor axis knows of its vocabulary's leaves, for some rows: brought
/// together so that every rank can merge all leaves by the tree.
class LeafStatistics {
  public:
    LeafStatistics(Compute& compute, const Weights& weights, DeviceSpan<float> statistics,
                   DeviceSpan<float> target)
        : compute_(compute), weights_(weights), statistics_(statistics), target_(target) {}

    /// @param own  [rows, own leaves, 3]; @param own_target  [rows], of the targets among the own
    void gather(DeviceSpan<const float> own, DeviceSpan<const float> own_target,
                std::span<const TokenId> targets) {
        const auto download = [&](DeviceSpan<const float> span) {
            return compute_.device.Memory::download<float>(span, compute_.stream);
        };
        std::vector<float> mine = download(own);
        const std::vector<float> mine_target = download(own_target);
        mine.insert(mine.end(), mine_target.begin(), mine_target.end());
        const int degree = weights_.part().place.degree;
        std::vector<float> all(mine.size() * static_cast<std::size_t>(degree));
        weights_.tensor().all_gather("sums:vocabulary", mine, all);

        const std::size_t rows = targets.size();
        const auto width = static_cast<std::size_t>(weights_.part().leaves.size() * 3);
        std::vector<float> statistics;
        std::vector<float> target(rows, 0.0F);
        for (std::size_t row = 0; row < rows; ++row) {
            for (int rank = 0; rank < degree; ++rank) {
                const auto of_rank = std::span(all).subspan(
                    static_cast<std::size_t>(rank) * mine.size(), mine.size());
                const auto part = of_rank.subspan(row * width, width);
                statistics.insert(statistics.end(), part.begin(), part.end());
            }
            const auto holder =
                static_cast<std::size_t>(weights_.vocabulary().holder(targets[row]));
            if (holder < static_cast<std::size_t>(degree))
                target[row] = all[holder * mine.size() + rows * width + row];
        }
        compute_.device.Memory::upload<float>(std::span<const float>(statistics), statistics_,
                                              compute_.stream);
        compute_.device.Memory::upload<float>(std::span<const float>(target), target_,
                                              compute_.stream);
    }

  private:
    Compute& compute_;
    const Weights& weights_;
    DeviceSpan<float> statistics_;
    DeviceSpan<float> target_;
};

}  // namespace

void head_logprobs(Compute& compute, const Weights& weights, const HeadOptions& options,
                   ConstMatrix hidden, const ChooseTargets& choose, const LogprobSpans& out,
                   Matrix kept) {
    const ModelConfig& config = weights.config();
    kernels::Device& device = compute.device;
    const std::int64_t rows = hidden.rows;
    ReductionTree tree = config.tree();
    if (options.break_order) tree.radices = {tree.leaves()};
    const Part& part = weights.part();
    const std::vector<Range> leaves = vocabulary_leaves(config, part);
    const auto leaf_count = std::ssize(leaves);
    const std::int64_t all_leaves = tree.leaves();
    const std::vector<float> inverse = inverse_temperatures(options, rows);
    // Every rank of the tensor axis goes by the same blocks.
    const std::int64_t row_bytes =
        ceil_div(config.vocab_size, part.place.degree) * size_of(DType::f32);
    const std::int64_t block = std::clamp<std::int64_t>(options.block_bytes / row_bytes, 1,
                                                        std::max<std::int64_t>(rows, 1));
    const kernels::Arena::Scope scope(compute.arena);
    const bool keeps = kept.rows > 0;
    const Matrix logits = keeps ? kept : compute.matrix(block, part.vocabulary.size());
    const DeviceSpan<float> statistics = compute.arena.take<float>(block * leaf_count * 3);
    const DeviceSpan<float> target = compute.arena.take<float>(block);
    // Of all leaves, where this rank holds only some.
    const DeviceSpan<float> whole =
        weights.split() ? compute.arena.take<float>(block * all_leaves * 3) : statistics;
    const auto part_of = [](DeviceSpan<float> span, std::int64_t begin, std::int64_t count) {
        return span.empty() ? span : span.subspan(begin, count);
    };
    for (std::int64_t begin = 0; begin < rows; begin += block) {
        const std::int64_t count = std::min(block, rows - begin);
        const Range range{begin, begin + count};
        const Matrix some = logits.row_range(keeps ? range : Range{0, count});
        const DeviceSpan<float> some_statistics = statistics.subspan(0, count * leaf_count * 3);
        const DeviceSpan<float> some_target = target.subspan(0, count);
        const DeviceSpan<float> some_whole = whole.subspan(0, count * all_leaves * 3);
        if (!part.vocabulary.empty()) {
            device.matmul({.x = hidden.row_range(range), .w = weights.packed_head(), .y = some},
                          compute.stream);
        }
        const std::span<const TokenId> targets = choose(range, some);
        // A leaf that is empty has s = 0: so have all where there is no vocabulary.
        if (weights.split()) {
            device.zero(cast_span<std::byte>(some_statistics), compute.stream);
            device.zero(cast_span<std::byte>(some_target), compute.stream);
        }
        if (!part.vocabulary.empty()) {
            device.vocabulary_statistics(
                {.logits = some,
                 .first_column = part.vocabulary.begin,
                 .leaves = leaves,
                 .ids = options.ids,
                 .inverse_temperature = std::span(inverse).subspan(static_cast<std::size_t>(begin),
                                                                   static_cast<std::size_t>(count)),
                 .targets = targets,
                 .statistics = some_statistics,
                 .target = some_target},
                compute.stream);
        }
        if (weights.split()) {
            LeafStatistics(compute, weights, some_whole, some_target)
                .gather(some_statistics, some_target, targets);
        }
        device.merge_statistics({.statistics = some_whole,
                                 .tree = tree,
                                 .rows = count,
                                 .target = some_target,
                                 .logprob = out.logprob.subspan(begin, count),
                                 .entropy = part_of(out.entropy, begin, count),
                                 .maximum = part_of(out.maximum, begin, count),
                                 .sum = out.sum.subspan(begin, count)},
                                compute.stream);
    }
}

Matrix gather_logits(Compute& compute, const Weights& weights, ConstMatrix logits) {
    const ModelConfig& config = weights.config();
    const std::int64_t rows = logits.rows;
    const Matrix whole = compute.matrix(rows, config.vocab_size);
    const kernels::Arena::Scope scope(compute.arena);
    const DeviceSpan<float> received = compute.arena.take<float>(rows * config.vocab_size);
    std::vector<std::int64_t> counts;
    for (const Range columns : weights.vocabulary().ranges())
        counts.push_back(rows * columns.size());
    sums::gather_blocks(compute.tools(), weights.tensor(), "logits", logits, counts, received);
    std::int64_t at = 0;
    for (const Range columns : weights.vocabulary().ranges()) {
        if (columns.empty()) continue;
        const std::int64_t size = rows * columns.size();
        compute.copy_rows(Matrix(received.subspan(at, size), rows, columns.size()),
                          whole.col_range(columns));
        at += size;
    }
    return whole;
}

HeadOutputs head_forward(Compute& compute, const Weights& weights, const HeadOptions& options,
                         const Microbatch& batch, ConstMatrix x) {
    const ModelConfig& config = weights.config();
    kernels::Device& device = compute.device;
    const Range decoder_rows{0, std::ssize(batch.head)};
    const std::int64_t rows = decoder_rows.end + std::ssize(batch.further);
    HeadOutputs out;
    out.logprob = compute.kept().take<float>(rows);
    out.entropy = compute.kept().take<float>(rows);
    out.maximum = compute.kept().take<float>(rows);
    out.sum = compute.kept().take<float>(rows);
    out.hidden = compute.kept_matrix(rows, config.hidden, config.dtype);
    out.normed = compute.kept_matrix(x.rows, config.hidden, config.dtype);
    out.inv_rms = compute.kept().take<float>(x.rows);
    device.rms_norm({.x = x,
                     .weight = weights.final_norm(),
                     .eps = static_cast<float>(config.rms_norm_eps),
                     .y = out.normed,
                     .inv_rms = out.inv_rms},
                    compute.stream);
    device.gather_rows(
        {.from = out.normed, .rows = rows_of(batch), .to = out.hidden.row_range(decoder_rows)},
        compute.stream);
    if (!batch.following.empty()) {
        out.mtp = mtp_forward(compute, weights, batch, out.normed,
                              out.hidden.row_range({decoder_rows.end, rows}));
    }

    const std::vector<TokenId> targets = targets_of(batch);
    const ChooseTargets known = [&](Range some, ConstMatrix) {
        return std::span(targets).subspan(static_cast<std::size_t>(some.begin),
                                          static_cast<std::size_t>(some.size()));
    };
    if (keeps_logits(options, rows, weights.part().vocabulary.size()))
        out.logits = compute.kept_matrix(rows, weights.part().vocabulary.size());
    head_logprobs(compute, weights, options, out.hidden, known, out, out.logits);
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
    const std::vector<std::int64_t> borders = borders_of(batch);
    const std::vector<float> inverse = inverse_temperatures(options, rows);
    const Part& part = weights.part();
    const std::vector<Range> leaves = vocabulary_leaves(config, part);
    const ReductionTree tree = config.tree().below(part.place.degree);
    const bool has_vocabulary = !part.vocabulary.empty();

    // A multiple of 16 columns, so that lanes and leaves keep their places.
    const std::int64_t fitting =
        options.block_bytes / (std::max<std::int64_t>(rows, 1) * size_of(DType::f32));
    const std::int64_t tile = std::max<std::int64_t>(64, fitting / 16 * 16);
    const Matrix dhidden = compute.matrix(rows, config.hidden, config.dtype);
    const bool rounded = config.dtype != DType::f32;
    // The module's way back needs the memory of the head's gradient.
    const bool predicts_further = !batch.following.empty();
    std::optional<kernels::Arena::Scope> head_scope;
    if (predicts_further) head_scope.emplace(compute.arena);
    const Matrix own =  // of this rank's leaves
        weights.split() || rounded ? compute.matrix(rows, config.hidden) : dhidden;
    LeafSums sums(compute, tree, own);
    const GradientSlot head =
        has_vocabulary ? gradients.slot(weights.parameters().head) : GradientSlot{};
    for (std::size_t leaf = 0; leaf < leaves.size(); ++leaf) {
        bool started = false;
        for (std::int64_t begin = leaves[leaf].begin; begin < leaves[leaf].end; begin += tile) {
            const kernels::Arena::Scope tile_scope(compute.arena);
            const Range columns{begin, std::min(begin + tile, leaves[leaf].end)};
            const Range held{columns.begin - part.vocabulary.begin,
                             columns.end - part.vocabulary.begin};
            const kernels::PackSpec forward{config.dtype, columns.size(),
                                            Contraction::straight(config.hidden)};
            const kernels::PackSpec backward{config.dtype, config.hidden,
                                             Contraction::straight(columns.size())};
            const ConstMatrix rows_of_tile = weights.head().row_range(held);
            const DeviceSpan<std::byte> packed = compute.arena.take<std::byte>(
                std::max(device.packed_bytes(forward), device.packed_bytes(backward)));
            const bool again = kept.logits.rows == 0;
            const Matrix logits =
                again ? compute.matrix(rows, columns.size()) : kept.logits.col_range(held);
            if (again) {
                device.pack(forward, kernels::PackSide::outputs, std::span(&rows_of_tile, 1),
                            packed.subspan(0, device.packed_bytes(forward)), compute.stream);
                device.matmul({.x = kept.hidden,
                               .w = {&forward, packed.subspan(0, device.packed_bytes(forward))},
                               .y = logits},
                              compute.stream);
            }
            device.logprob_gradient({.logits = logits,
                                     .first_column = columns.begin,
                                     .ids = options.ids,
                                     .inverse_temperature = inverse,
                                     .targets = targets,
                                     .coefficient = coefficient,
                                     .maximum = kept.maximum,
                                     .sum = kept.sum},
                                    compute.stream);
            Matrix dlogits = logits;
            if (rounded) {
                dlogits = compute.matrix(rows, columns.size(), config.dtype);
                device.round({.from = logits, .to = dlogits}, compute.stream);
            }
            device.weight_gradient({.dy = dlogits,
                                    .x = kept.hidden,
                                    .dw = head.matrix.row_range(held),
                                    .output = head.output,
                                    .segments = borders},
                                   compute.stream);
            device.pack(backward, kernels::PackSide::inputs, std::span(&rows_of_tile, 1),
                        packed.subspan(0, device.packed_bytes(backward)), compute.stream);
            device.matmul({.x = dlogits,
                           .w = {&backward, packed.subspan(0, device.packed_bytes(backward))},
                           .y = sums.leaf(),
                           .output = started ? Output::resume : Output::store},
                          compute.stream);
            started = true;
        }
        if (has_vocabulary) sums.leaf_done(narrow<int>(leaf), !started);
    }
    if (weights.split()) {
        sums::all_reduce(compute.tools(), weights.tensor(), "sums:dhidden",
                         weights.tensor_sums().vocabulary, has_vocabulary ? own : Matrix(),
                         dhidden);
    } else if (rounded) {
        device.round({.from = own, .to = dhidden}, compute.stream);
    }

    if (predicts_further) {
        gradients.head_done();
        head_scope.reset();
    }
    const Matrix dnormed = compute.matrix(x.rows, config.hidden, config.dtype);
    const Range decoder_rows{0, std::ssize(batch.head)};
    device.scatter_rows(
        {.from = dhidden.row_range(decoder_rows), .rows = rows_of(batch), .to = dnormed},
        compute.stream);
    Matrix dembedded;
    if (predicts_further) {
        dembedded = mtp_backward(compute, weights, batch, kept.mtp, kept.normed,
                                 dhidden.row_range({decoder_rows.end, rows}), dnormed, gradients);
    }
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
    if (!predicts_further) {
        gradients.head_done();
        return;
    }
    gradients.mtp_done();
    const EmbeddingGradient embedding =
        embedding_gradient(compute, weights, batch.following, dembedded);
    gradients.mtp_embedding(embedding.unique, embedding.rows);
}

}  // namespace rankwise::model
