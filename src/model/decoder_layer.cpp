#include "src/model/decoder_layer.hpp"

#include <array>

#include "src/model/linear_gradients.hpp"
#include "src/model/split_linear.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

/// Columns of q, k and v in their stacked matrix.
struct QkvColumns {
    explicit QkvColumns(const Part& part)
        : q{0, part.q_size()}, k{q.end, q.end + part.kv_size()}, v{k.end, k.end + part.kv_size()} {}
    Range q, k, v;
};

float norm_eps(const Weights& weights) {
    return static_cast<float>(weights.config().rms_norm_eps);
}

void rotate(Compute& compute, const Weights& weights, std::span<const std::int32_t> positions,
            Matrix qkv, bool inverse) {
    const Part& part = weights.part();
    const QkvColumns columns(part);
    const auto turn = [&](Range range, std::int64_t heads) {
        compute.device.rope({.x = qkv.col_range(range),
                             .heads = heads,
                             .head_dim = part.head_dim,
                             .positions = positions,
                             .cosine = weights.cosine(),
                             .sine = weights.sine(),
                             .inverse = inverse},
                            compute.stream);
    };
    turn(columns.q, part.heads.size());
    turn(columns.k, part.kv_heads.size());
}

/// Allocates what a layer's forward pass writes. Without `keep` only what it needs itself.
LayerActivations allocate(Compute& compute, const Weights& weights, std::int64_t layer,
                          const TokenSplit& tokens, bool keep) {
    const std::int64_t rows = tokens.total();
    const std::int64_t own_rows = tokens.mine().size();
    const ModelConfig& config = weights.config();
    const Part& part = weights.part();
    LayerActivations kept;
    const auto matrix = [&](std::int64_t count, std::int64_t cols) {
        return keep ? compute.kept_matrix(count, cols, config.dtype)
                    : compute.matrix(count, cols, config.dtype);
    };
    kept.normed_in = matrix(rows, config.hidden);
    if (config.latent.used()) {
        kept.latent = allocate_latent(compute, weights, rows, keep);
    } else {
        kept.qkv = matrix(rows, part.qkv_size());
    }
    kept.attention = matrix(rows, part.attention_size());
    if (config.has_experts(layer)) {
        kept.experts = allocate_experts(compute, weights, tokens, keep);
    } else {
        kept.gate_up = matrix(rows, 2 * part.intermediate.size());
        kept.activated = matrix(rows, part.intermediate.size());
    }
    if (!keep) {
        kept.normed_post = kept.normed_in;
        return kept;
    }
    kept.normed_post = matrix(rows, config.hidden);
    kept.x_in = matrix(own_rows, config.hidden);
    kept.x_mid = matrix(own_rows, config.hidden);
    const Kept memory = compute.kept();
    kept.inv_rms_in = memory.take<float>(own_rows);
    kept.inv_rms_post = memory.take<float>(own_rows);
    kept.maximum = memory.take<float>(rows * part.heads.size());
    kept.denominator = memory.take<float>(rows * part.heads.size());
    if (config.qk_norm) {
        kept.qkv_raw = matrix(rows, part.q_size() + part.kv_size());
        kept.inv_rms_q = memory.take<float>(rows * part.heads.size());
        kept.inv_rms_k = memory.take<float>(rows * part.kv_heads.size());
    }
    return kept;
}

/// y = norm(x): y has all rows, x those of this rank.
void norm(Compute& compute, const Weights& weights, const TokenSplit& tokens, ConstMatrix x,
          DeviceSpan<const float> weight, DeviceSpan<float> inv_rms, Matrix y) {
    const kernels::Arena::Scope scope(compute.arena);
    const Matrix mine = tokens.split() ? compute.matrix(x.rows, x.cols, x.dtype) : y;
    compute.device.rms_norm(
        {.x = x, .weight = weight, .eps = norm_eps(weights), .y = mine, .inv_rms = inv_rms},
        compute.stream);
    if (tokens.split()) {
        sums::all_gather(compute.tools(), weights.tensor(), "activations:normed", tokens.rows(),
                         mine, y);
    }
}

/// Attention with keys and values of its own for each KV head: at.attention from the normed rows.
void attend(Compute& compute, const Weights& weights, std::int64_t layer,
            std::span<const std::int32_t> positions, const AttentionPass& attention,
            const LayerActivations& at, bool keep) {
    const ModelConfig& config = weights.config();
    const LayerWeights& w = weights.layer(layer);
    const Part& part = weights.part();
    const QkvColumns columns(part);
    compute.device.matmul({.x = at.normed_in, .w = w.qkv, .y = at.qkv, .bias = w.qkv_bias},
                          compute.stream);
    if (config.qk_norm) {
        if (keep) compute.copy_rows(at.qkv.col_range({0, columns.k.end}), at.qkv_raw);
        const auto norm_heads = [&](Range range, std::int64_t heads, DeviceSpan<const float> weight,
                                    DeviceSpan<float> inv_rms) {
            const Matrix heads_of = at.qkv.col_range(range);
            compute.device.rms_norm({.x = heads_of,
                                     .groups = heads,
                                     .weight = weight,
                                     .eps = norm_eps(weights),
                                     .y = heads_of,
                                     .inv_rms = inv_rms},
                                    compute.stream);
        };
        norm_heads(columns.q, part.heads.size(), w.q_norm, at.inv_rms_q);
        norm_heads(columns.k, part.kv_heads.size(), w.k_norm, at.inv_rms_k);
    }
    rotate(compute, weights, positions, at.qkv, false);
    if (compute.probe) compute.probe({layer, "qkv", at.qkv, false});
    attention({.q = at.qkv.col_range(columns.q),
               .k = at.qkv.col_range(columns.k),
               .v = at.qkv.col_range(columns.v)},
              at.attention);
}

void forward(Compute& compute, const Weights& weights, std::int64_t layer, const TokenSplit& tokens,
             std::span<const std::int32_t> positions, const AttentionPass& attention, Matrix x,
             LayerActivations& at, bool keep) {
    const LayerWeights& w = weights.layer(layer);
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const auto show = [&](std::string_view op, ConstMatrix value) {
        if (compute.probe) compute.probe({layer, op, value, false});
    };
    const auto show_stream = [&](std::string_view op) {
        if (!compute.probe) return;
        const kernels::Arena::Scope scope(compute.arena);
        compute.probe({layer, op, whole_rows(compute, weights, tokens, "probe:stream", x)});
    };

    if (keep) compute.copy(x, at.x_in);
    norm(compute, weights, tokens, x, w.input_norm, at.inv_rms_in, at.normed_in);
    if (w.latent != nullptr) {
        latent_forward(compute, weights, layer, positions, attention, at.normed_in, at.latent,
                       at.attention);
    } else {
        attend(compute, weights, layer, positions, attention, at, keep);
    }
    show("attention", at.attention);
    row_split_matmul(compute, weights, tokens, "sums:o_proj", weights.tensor_sums().attention,
                     at.attention, w.o, w.o_bias, Output::add, x);
    show_stream("o_proj");

    if (keep) compute.copy(x, at.x_mid);
    norm(compute, weights, tokens, x, w.post_norm, at.inv_rms_post, at.normed_post);
    if (w.experts != nullptr) {
        experts_forward(compute, weights, layer, tokens, at.normed_post, at.experts, x);
        return;
    }
    if (!weights.part().intermediate.empty()) {
        device.matmul(
            {.x = at.normed_post, .w = w.gate_up, .y = at.gate_up, .bias = w.gate_up_bias}, stream);
        device.swiglu({.gate_up = at.gate_up, .out = at.activated}, stream);
    }
    show("gate_up", at.gate_up);
    row_split_matmul(compute, weights, tokens, "sums:down_proj", weights.tensor_sums().intermediate,
                     at.activated, w.down, w.down_bias, Output::add, x);
    show_stream("down_proj");
}

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

void norm_backward(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                   ConstMatrix dy, ConstMatrix x, DeviceSpan<const float> weight,
                   DeviceSpan<const float> inv_rms, std::span<const std::int64_t> blocks,
                   ParameterId id, WeightGradients& gradients, Matrix dx) {
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
    compute.device.rms_norm_backward(
        {.dy = dy, .x = x, .weight = weight, .inv_rms = inv_rms, .dx = dx, .output = Output::add},
        compute.stream);
}

/// The gradient of a norm's weight over heads that tensor ranks hold parts of: in each block of
/// rows the heads by the tree, then the blocks ascending (N2).
void head_norm_gradient(Compute& compute, const Weights& weights, const sums::RankTree& ranks,
                        const kernels::RmsNormWeightGradientArgs& args, const GradientSlot& slot) {
    const kernels::Arena::Scope scope(compute.arena);
    const bool here = ranks.present[static_cast<std::size_t>(weights.part().place.rank)];
    const Matrix partial = here ? block_sums(compute, args) : Matrix();
    const Matrix total = compute.matrix(std::ssize(args.blocks) - 1, args.dw.size());
    sums::all_reduce(compute.tools(), weights.tensor(), "sums:head norms", ranks, partial, total);
    add_blocks(compute, total, slot);
}

void qk_norm_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                      const Microbatch& batch, const LayerActivations& kept, Matrix dqkv,
                      WeightGradients& gradients) {
    const LayerIds& ids = weights.parameters().layer(layer);
    const LayerWeights& w = weights.layer(layer);
    const Part& part = weights.part();
    const QkvColumns columns(part);
    const auto back = [&](Range range, std::int64_t heads, const Contraction& order,
                          const sums::RankTree& ranks, DeviceSpan<const float> weight,
                          DeviceSpan<const float> inv_rms, ParameterId id) {
        const Matrix dy = dqkv.col_range(range);
        const ConstMatrix x = kept.qkv_raw.col_range(range);
        gradients.add([&compute, &weights, &order, &ranks, &batch, heads, inv_rms, id, x,
                       before = gradients.as_it_is(dy)](GradientSink& sink) {
            const GradientSlot slot = sink.slot(id);
            const kernels::RmsNormWeightGradientArgs args{.dy = before,
                                                          .x = x,
                                                          .groups = heads,
                                                          .group_order = order,
                                                          .inv_rms = inv_rms,
                                                          .blocks = batch.norm_blocks,
                                                          .dw = slot.vector(),
                                                          .output = slot.output};
            if (weights.split()) {
                head_norm_gradient(compute, weights, ranks, args, slot);
            } else {
                compute.device.rms_norm_weight_gradient(args, compute.stream);
            }
        });
        compute.device.rms_norm_backward(
            {.dy = dy, .x = x, .groups = heads, .weight = weight, .inv_rms = inv_rms, .dx = dy},
            compute.stream);
    };
    const LayerContractions& orders = weights.contractions();
    const TensorSums& ranks = weights.tensor_sums();
    back(columns.q, part.heads.size(), orders.heads, ranks.attention, w.q_norm, kept.inv_rms_q,
         ids.q_norm);
    back(columns.k, part.kv_heads.size(), orders.kv_heads, ranks.k_norm, w.k_norm, kept.inv_rms_k,
         ids.k_norm);
}

/// dk and dv of KV heads that several tensor ranks hold: the tree above their query heads.
void add_shared_kv(Compute& compute, const Weights& weights, ConstMatrix partial, Matrix dkv) {
    const kernels::Arena::Scope scope(compute.arena);
    const Matrix total = compute.matrix(dkv.rows, dkv.cols, dkv.dtype);
    sums::all_reduce(compute.tools(), weights.tensor(), "sums:shared kv",
                     weights.tensor_sums().shared_kv, partial, total);
    compute.copy_rows(total, dkv);
}

/// dnormed = the gradient of the normed input of attention(rope(qkv(x))), in this rank's rows.
void attention_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                        const Microbatch& batch, const TokenSplit& tokens,
                        const LayerActivations& kept, ConstMatrix dattention,
                        WeightGradients& gradients, Matrix dnormed) {
    const ModelConfig& config = weights.config();
    const LayerIds& ids = weights.parameters().layer(layer);
    const Part& part = weights.part();
    const QkvColumns columns(part);
    const AttentionShape shape = attention_shape(weights);
    const Matrix dqkv = gradients.matrix(dattention.rows, part.qkv_size(), config.dtype);
    // Of heads that other ranks have too: sums that are not finished here.
    const bool shared = part.place.degree > config.kv_heads;
    const Range kv_columns{columns.k.begin, columns.v.end};
    const Matrix dkv =
        shared ? compute.matrix(dqkv.rows, kv_columns.size()) : dqkv.col_range(kv_columns);
    const ConstMatrix qkv = kept.qkv;
    compute.device.segment_attention_backward({.q = qkv.col_range(columns.q),
                                               .k = qkv.col_range(columns.k),
                                               .v = qkv.col_range(columns.v),
                                               .out = kept.attention,
                                               .dout = dattention,
                                               .maximum = kept.maximum,
                                               .denominator = kept.denominator,
                                               .heads = shape.heads,
                                               .kv_heads = shape.kv_heads,
                                               .head_order = weights.contractions().heads,
                                               .segments = batch.segments,
                                               .scale = shape.scale,
                                               .dq = dqkv.col_range(columns.q),
                                               .dk = dkv.col_range({0, columns.k.size()}),
                                               .dv = dkv.col_range({columns.k.size(), dkv.cols})},
                                              compute.stream);
    if (shared) add_shared_kv(compute, weights, dkv, dqkv.col_range(kv_columns));
    rotate(compute, weights, batch.positions, dqkv, true);
    if (config.qk_norm) qk_norm_backward(compute, weights, layer, batch, kept, dqkv, gradients);
    const std::array linears{Linear{ids.q, ids.q_bias, columns.q},
                             Linear{ids.k, ids.k_bias, columns.k},
                             Linear{ids.v, ids.v_bias, columns.v}};
    gradients.add([&compute, &batch, linears, dqkv, x = kept.normed_in](GradientSink& sink) {
        linear_gradients(compute, linears, dqkv, x, sink, batch.segment_borders);
    });
    row_split_matmul(compute, weights, tokens, "sums:dnormed attention",
                     weights.tensor_sums().attention, dqkv, weights.layer(layer).qkv_back, {},
                     Output::store, dnormed);
}

/// Of a layer. Takes scratch memory that it does not give back: gradients may lie among it.
void backward(Compute& compute, const Weights& weights, std::int64_t layer, const Microbatch& batch,
              const LayerActivations& kept, Matrix dx, WeightGradients& gradients) {
    const ModelConfig& config = weights.config();
    const LayerWeights& w = weights.layer(layer);
    const LayerIds& ids = weights.parameters().layer(layer);
    const Part& part = weights.part();
    const TensorSums& ranks = weights.tensor_sums();
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const TokenSplit tokens(weights, batch);
    const std::int64_t rows = tokens.total();
    const std::int64_t intermediate = w.experts != nullptr ? 0 : part.intermediate.size();
    const auto all_of_dx = [&] {
        return gradients.as_it_is(whole_rows(compute, weights, tokens, "activations:gradient", dx));
    };
    const auto add_linears = [&](auto linears, ConstMatrix dy, ConstMatrix x) {
        gradients.add([&compute, &batch, linears, dy, x](GradientSink& sink) {
            linear_gradients(compute, linears, dy, x, sink, batch.segment_borders);
        });
    };

    const auto show = [&](std::string_view op, ConstMatrix gradient) {
        if (compute.probe) compute.probe({layer, op, gradient, /*whole=*/true, /*backward=*/true});
    };

    // MLP: x_out = x_mid + down(swiglu(gate_up(norm(x_mid)))).
    const ConstMatrix dout = all_of_dx();
    show("gradient of what the MLP gave", dout);
    const Matrix dgate_up = gradients.matrix(rows, 2 * intermediate, config.dtype);
    if (intermediate > 0) {
        add_linears(std::array{Linear{ids.down, -1, {0, config.hidden}}}, dout, kept.activated);
        const Matrix dactivated = compute.matrix(rows, intermediate, config.dtype);
        device.matmul({.x = dout, .w = w.down_back, .y = dactivated}, stream);
        device.swiglu_backward({.gate_up = kept.gate_up, .dout = dactivated, .dgate_up = dgate_up},
                               stream);
        add_linears(std::array{Linear{ids.gate, ids.gate_bias, {0, intermediate}},
                               Linear{ids.up, ids.up_bias, {intermediate, 2 * intermediate}}},
                    dgate_up, kept.normed_post);
    }
    gradients.add([&compute, id = ids.down_bias, dout](GradientSink& sink) {
        bias_gradient(compute, id, dout, sink);
    });
    const Matrix dnormed_post = gradients.matrix(dx.rows, config.hidden, config.dtype);
    if (w.experts != nullptr) {
        experts_backward(compute, weights, layer, tokens, kept.experts, kept.normed_post, dout,
                         gradients, dnormed_post);
    } else {
        row_split_matmul(compute, weights, tokens, "sums:dnormed mlp", ranks.intermediate, dgate_up,
                         w.gate_up_back, {}, Output::store, dnormed_post);
    }
    norm_backward(compute, weights, tokens, dnormed_post, kept.x_mid, w.post_norm,
                  kept.inv_rms_post, batch.norm_blocks, ids.post_norm, gradients, dx);

    // Attention: x_mid = x_in + o(attention(norm(x_in))).
    const ConstMatrix dmid = all_of_dx();
    show("gradient of what attention gave", dmid);
    add_linears(std::array{Linear{ids.o, ids.o_bias, {0, config.hidden}}}, dmid, kept.attention);
    // With latent attention a gradient reads it too.
    const Matrix dattention = w.latent != nullptr
                                  ? gradients.matrix(rows, part.attention_size(), config.dtype)
                                  : compute.matrix(rows, part.attention_size(), config.dtype);
    device.matmul({.x = dmid, .w = w.o_back, .y = dattention}, stream);
    // Of the same size: read before, unless that is put off.
    const Matrix dnormed_in = gradients.again(dnormed_post);
    if (w.latent != nullptr) {
        latent_backward(compute, weights, layer, batch, tokens, kept.latent,
                        {.maximum = kept.maximum, .denominator = kept.denominator}, kept.normed_in,
                        dattention, gradients, dnormed_in);
    } else {
        attention_backward(compute, weights, layer, batch, tokens, kept, dattention, gradients,
                           dnormed_in);
    }
    norm_backward(compute, weights, tokens, dnormed_in, kept.x_in, w.input_norm, kept.inv_rms_in,
                  batch.norm_blocks, ids.input_norm, gradients, dx);
}

}  // namespace

void layer_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                   std::span<const std::int32_t> positions, const AttentionPass& attention,
                   Matrix x) {
    if (compute.beat) compute.beat();
    const kernels::Arena::Scope scope(compute.arena);
    const TokenSplit all(x.rows);
    LayerActivations scratch = allocate(compute, weights, layer, all, false);
    forward(compute, weights, layer, all, positions, attention, x, scratch, false);
}

LayerActivations layer_forward_keep(Compute& compute, const Weights& weights, std::int64_t layer,
                                    const Microbatch& batch, Matrix x) {
    if (compute.beat) compute.beat();
    const AttentionShape shape = attention_shape(weights);
    const TokenSplit tokens(weights, batch);
    LayerActivations kept = allocate(compute, weights, layer, tokens, true);
    const AttentionPass attention = [&](const AttentionInputs& in, Matrix out) {
        compute.device.segment_attention({.q = in.q,
                                          .k = in.k,
                                          .v = in.v,
                                          .heads = shape.heads,
                                          .kv_heads = shape.kv_heads,
                                          .segments = batch.segments,
                                          .scale = shape.scale,
                                          .out = out,
                                          .maximum = kept.maximum,
                                          .denominator = kept.denominator},
                                         compute.stream);
    };
    forward(compute, weights, layer, tokens, batch.positions, attention, x, kept, true);
    return kept;
}

void layer_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                    const Microbatch& batch, const LayerActivations& kept, Matrix dx,
                    GradientSink& gradients) {
    if (compute.beat) compute.beat();
    const kernels::Arena::Scope scope(compute.arena);
    WeightGradients now(compute, &gradients, nullptr);
    backward(compute, weights, layer, batch, kept, dx, now);
    gradients.layer_done(layer);
}

void layer_backward_input(Compute& compute, const Weights& weights, std::int64_t layer,
                          const Microbatch& batch, const LayerActivations& kept, Matrix dx,
                          WeightWork& later) {
    if (compute.beat) compute.beat();
    const kernels::Arena::Scope scope(compute.arena);
    WeightGradients put_off(compute, nullptr, &later);
    backward(compute, weights, layer, batch, kept, dx, put_off);
    later.emplace_back([layer](GradientSink& sink) { sink.layer_done(layer); });
}

}  // namespace rankwise::model
