#include "src/model/latent_attention.hpp"

#include <array>

#include "src/model/linear_gradients.hpp"
#include "src/model/split_linear.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

/// Of the norms of compressed queries and latents: the family has it fixed.
constexpr float kInnerEps = 1e-6F;

/// The heads of a dense matrix as rows of their own: [T * heads, columns / heads].
template <class AnyMatrix>
AnyMatrix heads_as_rows(AnyMatrix matrix, std::int64_t heads) {
    ensure(matrix.dense() && matrix.cols % heads == 0, "{} columns in {} heads", matrix.cols,
           heads);
    const std::int64_t size = matrix.cols / heads;
    return {matrix.handle, matrix.dtype, matrix.rows * heads, size, size};
}

/// Sizes and column ranges that all steps share.
struct Sizes {
    explicit Sizes(const Weights& weights)
        : latent(weights.config().latent),
          heads(weights.part().heads.size()),
          nope{0, latent.nope_dim},
          rope{latent.nope_dim, latent.nope_dim + latent.rope_dim},
          compressed{0, latent.kv_rank},
          rope_key{latent.kv_rank, latent.key_dim()} {}

    LatentConfig latent;
    std::int64_t heads;
    Range nope, rope;            ///< of a head's query
    Range compressed, rope_key;  ///< of a key; of a head's query of the latent too

    [[nodiscard]] static Range of_head(std::int64_t head, std::int64_t size) {
        return {head * size, (head + 1) * size};
    }
    /// Head `head`'s columns of q that W_k takes.
    [[nodiscard]] Range nope_of(std::int64_t head) const {
        const std::int64_t begin = head * rope.end;
        return {begin, begin + nope.end};
    }
    /// Head `head`'s columns of absorbed queries that W_k gives.
    [[nodiscard]] Range absorbed_of(std::int64_t head) const {
        const std::int64_t begin = head * latent.key_dim();
        return {begin, begin + compressed.end};
    }
};

void rotate_adjacent(Compute& compute, const Weights& weights,
                     std::span<const std::int32_t> positions, Matrix x, bool inverse) {
    compute.device.rope({.x = x,
                         .heads = 1,
                         .head_dim = x.cols,
                         .positions = positions,
                         .cosine = weights.cosine(),
                         .sine = weights.sine(),
                         .inverse = inverse,
                         .pairs = kernels::RopePairs::adjacent},
                        compute.stream);
}

/// Each position as often as there are heads.
std::vector<std::int32_t> repeated(std::span<const std::int32_t> positions, std::int64_t heads) {
    std::vector<std::int32_t> all;
    all.reserve(positions.size() * static_cast<std::size_t>(heads));
    for (const std::int32_t position : positions)
        all.insert(all.end(), static_cast<std::size_t>(heads), position);
    return all;
}

void queries(Compute& compute, const Weights& weights, const LatentWeights& w, ConstMatrix x,
             const LatentActivations& at) {
    if (weights.config().latent.q_rank == 0) {
        compute.device.matmul({.x = x, .w = w.q, .y = at.q}, compute.stream);
        return;
    }
    compute.device.matmul({.x = x, .w = w.q_a, .y = at.q_a}, compute.stream);
    compute.device.rms_norm({.x = at.q_a,
                             .weight = w.q_a_norm,
                             .eps = kInnerEps,
                             .y = at.q_normed,
                             .inv_rms = at.inv_rms_q},
                            compute.stream);
    compute.device.matmul({.x = at.q_normed, .w = w.q, .y = at.q}, compute.stream);
}

/// The gradient of a matrix y = x W^T.
void linear_gradients(Compute& compute, ParameterId id, ConstMatrix dy, ConstMatrix x,
                      WeightGradients& gradients) {
    gradients.add([&compute, id, dy, x](GradientSink& sink) {
        linear_gradients(compute, std::array{Linear{id, -1, {0, dy.cols}}}, dy, x, sink);
    });
}

/// The same where every tensor rank has the matrix.
void shared_gradient(Compute& compute, const Weights& weights, ParameterId id, ConstMatrix dy,
                     ConstMatrix x, WeightGradients& gradients) {
    gradients.add([&compute, &weights, id, dy, x](GradientSink& sink) {
        shared_gradient(compute, weights, id, dy, x, sink);
    });
}

/// Of the norm of compressed queries or latents: dx, the gradient of what it gives in, of what it
/// takes out.
void inner_norm_backward(Compute& compute, ParameterId id, DeviceSpan<const float> weight,
                         const Microbatch& batch, ConstMatrix x, DeviceSpan<const float> inv_rms,
                         Matrix dx, WeightGradients& gradients) {
    gradients.add(
        [&compute, &batch, id, x, inv_rms, dy = gradients.as_it_is(dx)](GradientSink& sink) {
            const GradientSlot slot = sink.slot(id);
            compute.device.rms_norm_weight_gradient({.dy = dy,
                                                     .x = x,
                                                     .inv_rms = inv_rms,
                                                     .blocks = batch.norm_blocks,
                                                     .dw = slot.vector(),
                                                     .output = slot.output},
                                                    compute.stream);
        });
    compute.device.rms_norm_backward(
        {.dy = dx, .x = x, .weight = weight, .inv_rms = inv_rms, .dx = dx}, compute.stream);
}

/// dx = the gradient of the normed input through the queries.
void queries_backward(Compute& compute, const Weights& weights, const LayerIds& ids,
                      const LatentWeights& w, const Microbatch& batch, const TokenSplit& tokens,
                      const LatentActivations& kept, ConstMatrix x, ConstMatrix dq,
                      WeightGradients& gradients, Matrix dx) {
    constexpr std::string_view kLabel = "sums:dnormed attention";
    const sums::RankTree& ranks = weights.tensor_sums().attention;
    if (weights.config().latent.q_rank == 0) {
        linear_gradients(compute, ids.q, dq, x, gradients);
        row_split_matmul(compute, weights, tokens, kLabel, ranks, dq, w.q_back, {}, Output::store,
                         dx);
        return;
    }
    linear_gradients(compute, ids.q_b, dq, kept.q_normed, gradients);
    const Matrix dq_a = gradients.matrix(dq.rows, kept.q_a.cols);
    row_split_matmul(compute, weights, TokenSplit(dq.rows), kLabel, ranks, dq, w.q_back, {},
                     Output::store, dq_a);
    inner_norm_backward(compute, ids.q_a_norm, w.q_a_norm, batch, kept.q_a, kept.inv_rms_q, dq_a,
                        gradients);
    shared_gradient(compute, weights, ids.q_a, dq_a, x, gradients);
    compute.device.matmul({.x = dq_a.row_range(tokens.mine()), .w = w.q_a_back, .y = dx},
                          compute.stream);
}

/// The gradient of kv_b: each head's rows are W_k's, then W_v's.
void up_gradients(Compute& compute, ParameterId id, const Sizes& sizes,
                  const LatentActivations& kept, ConstMatrix dabsorbed, ConstMatrix dvalues,
                  WeightGradients& gradients) {
    gradients.add([&compute, id, sizes, q = kept.q, found = kept.found, dabsorbed,
                   dvalues](GradientSink& sink) {
        const GradientSlot kv_b = sink.slot(id);
        const std::int64_t unit = sizes.latent.nope_dim + sizes.latent.value_dim;
        const auto add = [&](ConstMatrix dy, ConstMatrix x, Range rows) {
            compute.device.weight_gradient(
                {.dy = dy, .x = x, .dw = kv_b.matrix.row_range(rows), .output = kv_b.output},
                compute.stream);
        };
        for (std::int64_t head = 0; head < sizes.heads; ++head) {
            const std::int64_t values = head * unit + sizes.nope.end;
            add(q.col_range(sizes.nope_of(head)), dabsorbed.col_range(sizes.absorbed_of(head)),
                {head * unit, values});
            add(dvalues.col_range(Sizes::of_head(head, sizes.latent.value_dim)),
                found.col_range(Sizes::of_head(head, sizes.latent.kv_rank)),
                {values, (head + 1) * unit});
        }
    });
}

}  // namespace

LatentActivations allocate_latent(Compute& compute, const Weights& weights, std::int64_t rows,
                                  bool keep) {
    const Sizes sizes(weights);
    const auto matrix = [&](std::int64_t count, std::int64_t cols) {
        return keep ? compute.kept_matrix(count, cols) : compute.matrix(count, cols);
    };
    LatentActivations at;
    if (sizes.latent.q_rank > 0) {
        at.q_a = matrix(rows, sizes.latent.q_rank);
        at.q_normed = keep ? matrix(rows, sizes.latent.q_rank) : at.q_a;
        if (keep) at.inv_rms_q = compute.kept().take<float>(rows);
    }
    at.q = matrix(rows, sizes.heads * sizes.rope.end);
    at.kv_a = matrix(rows, sizes.latent.key_dim());
    if (keep) at.inv_rms_kv = compute.kept().take<float>(rows);
    at.key = matrix(rows, sizes.latent.key_dim());
    at.absorbed = matrix(rows, sizes.heads * sizes.latent.key_dim());
    at.found = matrix(rows, sizes.heads * sizes.latent.kv_rank);
    return at;
}

void latent_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                    std::span<const std::int32_t> positions, AttentionPass attention, ConstMatrix x,
                    const LatentActivations& at, Matrix values) {
    const LatentWeights& w = *weights.layer(layer).latent;
    const Sizes sizes(weights);
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    queries(compute, weights, w, x, at);
    device.matmul({.x = x, .w = w.kv_a, .y = at.kv_a}, stream);
    device.rms_norm({.x = at.kv_a.col_range(sizes.compressed),
                     .weight = w.kv_a_norm,
                     .eps = kInnerEps,
                     .y = at.key.col_range(sizes.compressed),
                     .inv_rms = at.inv_rms_kv},
                    stream);
    compute.copy_rows(at.kv_a.col_range(sizes.rope_key), at.key.col_range(sizes.rope_key));
    rotate_adjacent(compute, weights, positions, at.key.col_range(sizes.rope_key), false);

    for (std::int64_t head = 0; head < sizes.heads; ++head) {
        device.matmul({.x = at.q.col_range(sizes.nope_of(head)),
                       .w = w.k_up[static_cast<std::size_t>(head)],
                       .y = at.absorbed.col_range(sizes.absorbed_of(head))},
                      stream);
    }
    const Matrix rotated = heads_as_rows(at.absorbed, sizes.heads).col_range(sizes.rope_key);
    compute.copy_rows(heads_as_rows(at.q, sizes.heads).col_range(sizes.rope), rotated);
    rotate_adjacent(compute, weights, repeated(positions, sizes.heads), rotated, false);
    if (compute.probe) {
        compute.probe({layer, "latent queries", at.absorbed, false});
        compute.probe({layer, "latent keys", at.key});
    }

    attention({.q = at.absorbed, .k = at.key, .v = at.key.col_range(sizes.compressed)}, at.found);
    for (std::int64_t head = 0; head < sizes.heads; ++head) {
        device.matmul({.x = at.found.col_range(Sizes::of_head(head, sizes.latent.kv_rank)),
                       .w = w.v_up[static_cast<std::size_t>(head)],
                       .y = values.col_range(Sizes::of_head(head, sizes.latent.value_dim))},
                      stream);
    }
}

void latent_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                     const Microbatch& batch, const TokenSplit& tokens,
                     const LatentActivations& kept, const AttentionStatistics& statistics,
                     ConstMatrix x, ConstMatrix dvalues, WeightGradients& gradients, Matrix dx) {
    const LatentWeights& w = *weights.layer(layer).latent;
    const LayerIds& ids = weights.parameters().layer(layer);
    const Sizes sizes(weights);
    const AttentionShape shape = attention_shape(weights);
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const std::int64_t rows = x.rows;

    const Matrix dfound = compute.matrix(rows, sizes.heads * sizes.latent.kv_rank);
    for (std::int64_t head = 0; head < sizes.heads; ++head) {
        device.matmul({.x = dvalues.col_range(Sizes::of_head(head, sizes.latent.value_dim)),
                       .w = w.v_up_back[static_cast<std::size_t>(head)],
                       .y = dfound.col_range(Sizes::of_head(head, sizes.latent.kv_rank))},
                      stream);
    }

    const Matrix dabsorbed = gradients.matrix(rows, kept.absorbed.cols);
    const Matrix dkey = gradients.matrix(rows, kept.key.cols);
    const Matrix dvalue = compute.matrix(rows, sizes.latent.kv_rank);
    // Of this rank's heads.
    const Matrix own_dkey = weights.split() ? compute.matrix(rows, kept.key.cols) : dkey;
    const Matrix own_dvalue = weights.split() ? compute.matrix(rows, dvalue.cols) : dvalue;
    device.segment_attention_backward({.q = kept.absorbed,
                                       .k = kept.key,
                                       .v = kept.key.col_range(sizes.compressed),
                                       .out = kept.found,
                                       .dout = dfound,
                                       .maximum = statistics.maximum,
                                       .denominator = statistics.denominator,
                                       .heads = shape.heads,
                                       .kv_heads = shape.kv_heads,
                                       .head_order = weights.contractions().heads,
                                       .segments = batch.segments,
                                       .scale = shape.scale,
                                       .dq = dabsorbed,
                                       .dk = own_dkey,
                                       .dv = own_dvalue},
                                      stream);
    if (weights.split()) {
        const auto add_heads = [&](ConstMatrix own, Matrix all) {
            sums::all_reduce(compute.tools(), weights.tensor(), "sums:dlatent",
                             weights.tensor_sums().attention, own, all);
        };
        add_heads(own_dkey, dkey);
        add_heads(own_dvalue, dvalue);
    }
    device.add({.from = dvalue, .to = dkey.col_range(sizes.compressed)}, stream);
    rotate_adjacent(compute, weights, batch.positions, dkey.col_range(sizes.rope_key), true);

    up_gradients(compute, ids.kv_b, sizes, kept, dabsorbed, dvalues, gradients);
    const Matrix dq = gradients.matrix(rows, kept.q.cols);
    for (std::int64_t head = 0; head < sizes.heads; ++head) {
        device.matmul({.x = dabsorbed.col_range(sizes.absorbed_of(head)),
                       .w = w.k_up_back[static_cast<std::size_t>(head)],
                       .y = dq.col_range(sizes.nope_of(head))},
                      stream);
    }
    const Matrix back = heads_as_rows(dq, sizes.heads).col_range(sizes.rope);
    compute.copy_rows(heads_as_rows(dabsorbed, sizes.heads).col_range(sizes.rope_key), back);
    rotate_adjacent(compute, weights, repeated(batch.positions, sizes.heads), back, true);

    queries_backward(compute, weights, ids, w, batch, tokens, kept, x, dq, gradients, dx);
    inner_norm_backward(compute, ids.kv_a_norm, w.kv_a_norm, batch,
                        kept.kv_a.col_range(sizes.compressed), kept.inv_rms_kv,
                        dkey.col_range(sizes.compressed), gradients);
    shared_gradient(compute, weights, ids.kv_a, dkey, x, gradients);
    device.matmul(
        {.x = dkey.row_range(tokens.mine()), .w = w.kv_a_back, .y = dx, .output = Output::add},
        stream);
}

}  // namespace rankwise::model
