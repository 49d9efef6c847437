#include "src/model/decoder_layer.hpp"

#include <array>
#include <cmath>

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

/// Columns of q, k and v in their stacked matrix.
struct QkvColumns {
    explicit QkvColumns(const ModelConfig& config)
        : q{0, config.q_size()},
          k{q.end, q.end + config.kv_size()},
          v{k.end, k.end + config.kv_size()} {}
    Range q, k, v;
};

float norm_eps(const Weights& weights) {
    return static_cast<float>(weights.config().rms_norm_eps);
}

void rotate(Compute& compute, const Weights& weights, std::span<const std::int32_t> positions,
            Matrix qkv, bool inverse) {
    const ModelConfig& config = weights.config();
    const QkvColumns columns(config);
    const auto turn = [&](Range range, std::int64_t heads) {
        compute.device.rope({.x = qkv.col_range(range),
                             .heads = heads,
                             .head_dim = config.head_dim,
                             .positions = positions,
                             .cosine = weights.cosine(),
                             .sine = weights.sine(),
                             .inverse = inverse},
                            compute.stream);
    };
    turn(columns.q, config.heads);
    turn(columns.k, config.kv_heads);
}

/// Allocates what a layer's forward pass writes. Without `keep` only what it needs itself.
LayerActivations allocate(Compute& compute, const ModelConfig& config, std::int64_t rows,
                          bool keep) {
    LayerActivations kept;
    kernels::Arena& arena = compute.arena;
    kept.normed_in = compute.matrix(rows, config.hidden);
    kept.qkv = compute.matrix(rows, config.qkv_size());
    kept.attention = compute.matrix(rows, config.q_size());
    kept.gate_up = compute.matrix(rows, 2 * config.intermediate);
    kept.activated = compute.matrix(rows, config.intermediate);
    if (!keep) {
        kept.normed_post = kept.normed_in;
        return kept;
    }
    kept.normed_post = compute.matrix(rows, config.hidden);
    kept.x_in = compute.matrix(rows, config.hidden);
    kept.x_mid = compute.matrix(rows, config.hidden);
    kept.inv_rms_in = arena.take<float>(rows);
    kept.inv_rms_post = arena.take<float>(rows);
    kept.maximum = arena.take<float>(rows * config.heads);
    kept.denominator = arena.take<float>(rows * config.heads);
    if (config.qk_norm) {
        kept.qkv_raw = compute.matrix(rows, config.q_size() + config.kv_size());
        kept.inv_rms_q = arena.take<float>(rows * config.heads);
        kept.inv_rms_k = arena.take<float>(rows * config.kv_heads);
    }
    return kept;
}

/// The copy of q and k as the backward pass of QK-norm needs them.
void keep_raw(Compute& compute, const ModelConfig& config, const LayerActivations& kept) {
    // Adding to zeros would be a sum; a gather with the identity is a copy with a stride.
    std::vector<std::int64_t> identity(static_cast<std::size_t>(kept.qkv.rows));
    for (std::size_t i = 0; i < identity.size(); ++i) identity[i] = static_cast<std::int64_t>(i);
    compute.device.gather_rows({.from = kept.qkv.col_range({0, config.q_size() + config.kv_size()}),
                                .rows = identity,
                                .to = kept.qkv_raw},
                               compute.stream);
}

void forward(Compute& compute, const Weights& weights, std::int64_t layer,
             std::span<const std::int32_t> positions, const AttentionPass& attention, Matrix x,
             const LayerActivations& at, bool keep) {
    const ModelConfig& config = weights.config();
    const LayerWeights& w = weights.layer(layer);
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const QkvColumns columns(config);
    const auto show = [&](std::string_view op, ConstMatrix value) {
        if (compute.probe) compute.probe(layer, op, value);
    };

    if (keep) compute.copy(x, at.x_in);
    device.rms_norm({.x = x,
                     .weight = w.input_norm,
                     .eps = norm_eps(weights),
                     .y = at.normed_in,
                     .inv_rms = at.inv_rms_in},
                    stream);
    device.matmul({.x = at.normed_in, .w = w.qkv, .y = at.qkv, .bias = w.qkv_bias}, stream);
    if (config.qk_norm) {
        if (keep) keep_raw(compute, config, at);
        const auto norm_heads = [&](Range range, std::int64_t heads, DeviceSpan<const float> weight,
                                    DeviceSpan<float> inv_rms) {
            const Matrix part = at.qkv.col_range(range);
            device.rms_norm({.x = part,
                             .groups = heads,
                             .weight = weight,
                             .eps = norm_eps(weights),
                             .y = part,
                             .inv_rms = inv_rms},
                            stream);
        };
        norm_heads(columns.q, config.heads, w.q_norm, at.inv_rms_q);
        norm_heads(columns.k, config.kv_heads, w.k_norm, at.inv_rms_k);
    }
    rotate(compute, weights, positions, at.qkv, false);
    show("qkv", at.qkv);
    attention(at.qkv, at.attention);
    show("attention", at.attention);
    device.matmul({.x = at.attention, .w = w.o, .y = x, .bias = w.o_bias, .output = Output::add},
                  stream);
    show("o_proj", x);

    if (keep) compute.copy(x, at.x_mid);
    device.rms_norm({.x = x,
                     .weight = w.post_norm,
                     .eps = norm_eps(weights),
                     .y = at.normed_post,
                     .inv_rms = at.inv_rms_post},
                    stream);
    device.matmul({.x = at.normed_post, .w = w.gate_up, .y = at.gate_up, .bias = w.gate_up_bias},
                  stream);
    show("gate_up", at.gate_up);
    device.swiglu({.gate_up = at.gate_up, .out = at.activated}, stream);
    device.matmul(
        {.x = at.activated, .w = w.down, .y = x, .bias = w.down_bias, .output = Output::add},
        stream);
    show("down_proj", x);
}

/// Weight and bias gradients of stacked linear layers: rows of `dy` in the columns of each.
struct Linear {
    ParameterId weight;
    ParameterId bias;
    Range columns;
};

void linear_gradients(Compute& compute, std::span<const Linear> linears, ConstMatrix dy,
                      ConstMatrix x, GradientSink& gradients) {
    for (const Linear& linear : linears) {
        const ConstMatrix part = dy.col_range(linear.columns);
        const GradientSlot weight = gradients.slot(linear.weight);
        compute.device.weight_gradient(
            {.dy = part, .x = x, .dw = weight.matrix, .output = weight.output}, compute.stream);
        if (linear.bias < 0) continue;
        const GradientSlot bias = gradients.slot(linear.bias);
        compute.device.bias_gradient({.dy = part, .db = bias.vector(), .output = bias.output},
                                     compute.stream);
    }
}

void norm_backward(Compute& compute, ConstMatrix dy, ConstMatrix x, DeviceSpan<const float> weight,
                   DeviceSpan<const float> inv_rms, std::span<const std::int64_t> blocks,
                   const GradientSlot& slot, Matrix dx) {
    compute.device.rms_norm_weight_gradient({.dy = dy,
                                             .x = x,
                                             .inv_rms = inv_rms,
                                             .blocks = blocks,
                                             .dw = slot.vector(),
                                             .output = slot.output},
                                            compute.stream);
    compute.device.rms_norm_backward(
        {.dy = dy, .x = x, .weight = weight, .inv_rms = inv_rms, .dx = dx, .output = Output::add},
        compute.stream);
}

void qk_norm_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                      const Microbatch& batch, const LayerActivations& kept, Matrix dqkv,
                      GradientSink& gradients) {
    const ModelConfig& config = weights.config();
    const LayerIds& ids = weights.parameters().layers[static_cast<std::size_t>(layer)];
    const LayerWeights& w = weights.layer(layer);
    const QkvColumns columns(config);
    const auto back = [&](Range range, std::int64_t heads, const Contraction& order,
                          DeviceSpan<const float> weight, DeviceSpan<const float> inv_rms,
                          ParameterId id) {
        const Matrix dy = dqkv.col_range(range);
        const ConstMatrix x = kept.qkv_raw.col_range(range);
        const GradientSlot slot = gradients.slot(id);
        compute.device.rms_norm_weight_gradient({.dy = dy,
                                                 .x = x,
                                                 .groups = heads,
                                                 .group_order = order,
                                                 .inv_rms = inv_rms,
                                                 .blocks = batch.norm_blocks,
                                                 .dw = slot.vector(),
                                                 .output = slot.output},
                                                compute.stream);
        compute.device.rms_norm_backward(
            {.dy = dy, .x = x, .groups = heads, .weight = weight, .inv_rms = inv_rms, .dx = dy},
            compute.stream);
    };
    back(columns.q, config.heads, weights.contractions().heads, w.q_norm, kept.inv_rms_q,
         ids.q_norm);
    back(columns.k, config.kv_heads, weights.contractions().kv_heads, w.k_norm, kept.inv_rms_k,
         ids.k_norm);
}

}  // namespace

float attention_scale(const ModelConfig& config) {
    return static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
}

void layer_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                   std::span<const std::int32_t> positions, const AttentionPass& attention,
                   Matrix x) {
    const kernels::Arena::Scope scope(compute.arena);
    const LayerActivations scratch = allocate(compute, weights.config(), x.rows, false);
    forward(compute, weights, layer, positions, attention, x, scratch, false);
}

LayerActivations layer_forward_keep(Compute& compute, const Weights& weights, std::int64_t layer,
                                    const Microbatch& batch, Matrix x) {
    const ModelConfig& config = weights.config();
    const QkvColumns columns(config);
    LayerActivations kept = allocate(compute, config, x.rows, true);
    const AttentionPass attention = [&](ConstMatrix qkv, Matrix out) {
        compute.device.segment_attention({.q = qkv.col_range(columns.q),
                                          .k = qkv.col_range(columns.k),
                                          .v = qkv.col_range(columns.v),
                                          .heads = config.heads,
                                          .kv_heads = config.kv_heads,
                                          .segments = batch.segments,
                                          .scale = attention_scale(config),
                                          .out = out,
                                          .maximum = kept.maximum,
                                          .denominator = kept.denominator},
                                         compute.stream);
    };
    forward(compute, weights, layer, batch.positions, attention, x, kept, true);
    return kept;
}

void layer_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                    const Microbatch& batch, const LayerActivations& kept, Matrix dx,
                    GradientSink& gradients) {
    const kernels::Arena::Scope scope(compute.arena);
    const ModelConfig& config = weights.config();
    const LayerWeights& w = weights.layer(layer);
    const LayerIds& ids = weights.parameters().layers[static_cast<std::size_t>(layer)];
    const QkvColumns columns(config);
    kernels::Device& device = compute.device;
    kernels::Stream& stream = compute.stream;
    const std::int64_t rows = dx.rows;
    const std::int64_t intermediate = config.intermediate;

    // MLP: x_out = x_mid + down(swiglu(gate_up(norm(x_mid)))).
    linear_gradients(compute, std::array{Linear{ids.down, ids.down_bias, {0, config.hidden}}}, dx,
                     kept.activated, gradients);
    const Matrix dactivated = compute.matrix(rows, intermediate);
    device.matmul({.x = dx, .w = w.down_back, .y = dactivated}, stream);
    const Matrix dgate_up = compute.matrix(rows, 2 * intermediate);
    device.swiglu_backward({.gate_up = kept.gate_up, .dout = dactivated, .dgate_up = dgate_up},
                           stream);
    linear_gradients(compute,
                     std::array{Linear{ids.gate, ids.gate_bias, {0, intermediate}},
                                Linear{ids.up, ids.up_bias, {intermediate, 2 * intermediate}}},
                     dgate_up, kept.normed_post, gradients);
    const Matrix dnormed = compute.matrix(rows, config.hidden);
    device.matmul({.x = dgate_up, .w = w.gate_up_back, .y = dnormed}, stream);
    norm_backward(compute, dnormed, kept.x_mid, w.post_norm, kept.inv_rms_post, batch.norm_blocks,
                  gradients.slot(ids.post_norm), dx);

    // Attention: x_mid = x_in + o(attention(rope(qkv(norm(x_in))))).
    linear_gradients(compute, std::array{Linear{ids.o, ids.o_bias, {0, config.hidden}}}, dx,
                     kept.attention, gradients);
    const Matrix dattention = compute.matrix(rows, config.q_size());
    device.matmul({.x = dx, .w = w.o_back, .y = dattention}, stream);
    const Matrix dqkv = compute.matrix(rows, config.qkv_size());
    const ConstMatrix qkv = kept.qkv;
    device.segment_attention_backward({.q = qkv.col_range(columns.q),
                                       .k = qkv.col_range(columns.k),
                                       .v = qkv.col_range(columns.v),
                                       .out = kept.attention,
                                       .dout = dattention,
                                       .maximum = kept.maximum,
                                       .denominator = kept.denominator,
                                       .heads = config.heads,
                                       .kv_heads = config.kv_heads,
                                       .head_order = weights.contractions().heads,
                                       .segments = batch.segments,
                                       .scale = attention_scale(config),
                                       .dq = dqkv.col_range(columns.q),
                                       .dk = dqkv.col_range(columns.k),
                                       .dv = dqkv.col_range(columns.v)},
                                      stream);
    rotate(compute, weights, batch.positions, dqkv, true);
    if (config.qk_norm) qk_norm_backward(compute, weights, layer, batch, kept, dqkv, gradients);
    linear_gradients(
        compute,
        std::array{Linear{ids.q, ids.q_bias, columns.q}, Linear{ids.k, ids.k_bias, columns.k},
                   Linear{ids.v, ids.v_bias, columns.v}},
        dqkv, kept.normed_in, gradients);
    device.matmul({.x = dqkv, .w = w.qkv_back, .y = dnormed}, stream);
    norm_backward(compute, dnormed, kept.x_in, w.input_norm, kept.inv_rms_in, batch.norm_blocks,
                  gradients.slot(ids.input_norm), dx);
    gradients.layer_done(layer);
}

}  // namespace rankwise::model
