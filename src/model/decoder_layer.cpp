#include "src/model/decoder_layer.hpp"

#include "src/model/layer_rows.hpp"
#include "src/model/split_linear.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

float norm_eps(const Weights& weights) {
    return static_cast<float>(weights.config().rms_norm_eps);
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
    // What products read. Rows that ranks send each other have no gaps.
    const bool moved = weights.split() || config.has_experts(layer);
    const auto read = [&](std::int64_t cols) {
        return moved ? matrix(rows, cols)
                     : compute.matrix_for_products(keep, rows, cols, config.dtype);
    };
    kept.normed_in = read(config.hidden);
    if (config.latent.used()) {
        kept.latent = allocate_latent(compute, weights, rows, keep);
    } else {
        kept.qkv = matrix(rows, part.qkv_size());
    }
    kept.attention = read(part.attention_size());
    if (config.has_experts(layer)) {
        kept.experts = allocate_experts(compute, weights, tokens, keep);
    } else {
        kept.gate_up = matrix(rows, 2 * part.intermediate.size());
        kept.activated = read(part.intermediate.size());
    }
    if (!keep) {
        kept.normed_post = kept.normed_in;
        return kept;
    }
    kept.normed_post = read(config.hidden);
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

/// y = norm(x): y has all rows, x those of this rank. Several threads call it where no rows are
/// split: it takes no memory then.
void norm(Compute& compute, const Weights& weights, const TokenSplit& tokens, ConstMatrix x,
          DeviceSpan<const float> weight, DeviceSpan<float> inv_rms, Matrix y) {
    const auto own_rows = [&](Matrix to) {
        compute.device.rms_norm(
            {.x = x, .weight = weight, .eps = norm_eps(weights), .y = to, .inv_rms = inv_rms},
            compute.stream);
    };
    if (!tokens.split()) {
        own_rows(y);
        return;
    }
    const kernels::Arena::Scope scope(compute.arena);
    const Matrix mine = compute.matrix(x.rows, x.cols, x.dtype);
    own_rows(mine);
    sums::all_gather(compute.tools(), weights.tensor(), "activations:normed", tokens.rows(), mine,
                     y);
}

/// The residual stream x goes on through the layer.
class LayerForward {
  public:
    LayerForward(Compute& compute, const Weights& weights, std::int64_t layer,
                 const TokenSplit& tokens, bool keep)
        : compute_(compute),
          weights_(weights),
          w_(weights.layer(layer)),
          layer_(layer),
          tokens_(tokens),
          keep_(keep) {}

    /// Rows of x normed; q, k and v of them, but for latent attention.
    void before_attention(std::span<const std::int32_t> positions, Matrix x,
                          const LayerActivations& at) const {
        if (keep_) compute_.copy(x, at.x_in);
        norm(compute_, weights_, tokens_, x, w_.input_norm, at.inv_rms_in, at.normed_in);
        if (w_.latent == nullptr) queries_keys_values(positions, at);
    }

    /// Adds what attention gave to rows of x, and what a dense MLP makes of them.
    void after_attention(Matrix x, const LayerActivations& at) const {
        row_split_matmul(compute_, weights_, tokens_, "sums:o_proj",
                         weights_.tensor_sums().attention, at.attention, w_.o, w_.o_bias,
                         Output::add, x);
        show_stream("o_proj", x);
        if (keep_) compute_.copy(x, at.x_mid);
        norm(compute_, weights_, tokens_, x, w_.post_norm, at.inv_rms_post, at.normed_post);
        if (w_.experts == nullptr) dense_mlp(x, at);
    }

  private:
    /// Each KV head with its own, normed and rotated.
    void queries_keys_values(std::span<const std::int32_t> positions,
                             const LayerActivations& at) const {
        const ModelConfig& config = weights_.config();
        const Part& part = weights_.part();
        const QkvColumns columns(part);
        compute_.device.matmul({.x = at.normed_in, .w = w_.qkv, .y = at.qkv, .bias = w_.qkv_bias},
                               compute_.stream);
        if (config.qk_norm) {
            if (keep_) compute_.copy_rows(at.qkv.col_range({0, columns.k.end}), at.qkv_raw);
            const auto norm_heads = [&](Range range, std::int64_t heads,
                                        DeviceSpan<const float> weight, DeviceSpan<float> inv_rms) {
                const Matrix heads_of = at.qkv.col_range(range);
                compute_.device.rms_norm({.x = heads_of,
                                          .groups = heads,
                                          .weight = weight,
                                          .eps = norm_eps(weights_),
                                          .y = heads_of,
                                          .inv_rms = inv_rms},
                                         compute_.stream);
            };
            norm_heads(columns.q, part.heads.size(), w_.q_norm, at.inv_rms_q);
            norm_heads(columns.k, part.kv_heads.size(), w_.k_norm, at.inv_rms_k);
        }
        rotate(compute_, weights_, positions, at.qkv, false);
        if (compute_.probe) compute_.probe({layer_, "qkv", at.qkv, false});
    }

    void dense_mlp(Matrix x, const LayerActivations& at) const {
        if (!weights_.part().intermediate.empty()) {
            compute_.device.matmul(
                {.x = at.normed_post, .w = w_.gate_up, .y = at.gate_up, .bias = w_.gate_up_bias},
                compute_.stream);
            compute_.device.swiglu({.gate_up = at.gate_up, .out = at.activated}, compute_.stream);
        }
        if (compute_.probe) compute_.probe({layer_, "gate_up", at.gate_up, false});
        row_split_matmul(compute_, weights_, tokens_, "sums:down_proj",
                         weights_.tensor_sums().intermediate, at.activated, w_.down, w_.down_bias,
                         Output::add, x);
        show_stream("down_proj", x);
    }

    void show_stream(std::string_view op, Matrix x) const {
        if (!compute_.probe) return;
        const kernels::Arena::Scope scope(compute_.arena);
        compute_.probe({layer_, op, whole_rows(compute_, weights_, tokens_, "probe:stream", x)});
    }

    Compute& compute_;
    const Weights& weights_;
    const LayerWeights& w_;
    std::int64_t layer_;
    const TokenSplit& tokens_;
    bool keep_;
};

void forward(Compute& compute, const Weights& weights, std::int64_t layer, const TokenSplit& tokens,
             std::span<const std::int32_t> positions, AttentionPass attention, Matrix x,
             LayerActivations& at, bool keep) {
    const Part& part = weights.part();
    const LayerForward steps(compute, weights, layer, tokens, keep);
    const bool split = weights.split();
    const bool latent = weights.layer(layer).latent != nullptr;

    in_rows(compute, weights, tokens.total(), [&](Range rows) {
        if (split) return steps.before_attention(positions, x, at);
        steps.before_attention(positions.subspan(static_cast<std::size_t>(rows.begin),
                                                 static_cast<std::size_t>(rows.size())),
                               x.row_range(rows), rows_of(at, rows, part));
    });
    if (latent) {
        latent_forward(compute, weights, layer, positions, attention, at.normed_in, at.latent,
                       at.attention);
    } else {
        const QkvColumns columns(part);
        attention({.q = at.qkv.col_range(columns.q),
                   .k = at.qkv.col_range(columns.k),
                   .v = at.qkv.col_range(columns.v)},
                  at.attention);
    }
    if (compute.probe) compute.probe({layer, "attention", at.attention, false});
    in_rows(compute, weights, tokens.total(), [&](Range rows) {
        if (split) return steps.after_attention(x, at);
        steps.after_attention(x.row_range(rows), rows_of(at, rows, part));
    });
    if (weights.layer(layer).experts != nullptr)
        experts_forward(compute, weights, layer, tokens, at.normed_post, at.experts, x);
}

}  // namespace

LayerActivations rows_of(const LayerActivations& all, Range rows, const Part& part) {
    LayerActivations some = all;
    for (Matrix* matrix : {&some.x_in, &some.normed_in, &some.qkv_raw, &some.qkv, &some.attention,
                           &some.x_mid, &some.normed_post, &some.gate_up, &some.activated}) {
        *matrix = matrix->row_range(rows);
    }
    const auto keep_rows = [rows](DeviceSpan<float>& span, std::int64_t each) {
        if (!span.empty()) span = span.subspan(rows.begin * each, rows.size() * each);
    };
    keep_rows(some.inv_rms_in, 1);
    keep_rows(some.inv_rms_post, 1);
    keep_rows(some.inv_rms_q, part.heads.size());
    keep_rows(some.inv_rms_k, part.kv_heads.size());
    return some;
}

LayerActivations forward_scratch(Compute& compute, const Weights& weights, std::int64_t layer,
                                 std::int64_t rows) {
    return allocate(compute, weights, layer, TokenSplit(rows), false);
}

void layer_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                   std::span<const std::int32_t> positions, AttentionPass attention, Matrix x,
                   LayerActivations& scratch) {
    forward(compute, weights, layer, TokenSplit(x.rows), positions, attention, x, scratch, false);
}

void layer_forward(Compute& compute, const Weights& weights, std::int64_t layer,
                   std::span<const std::int32_t> positions, AttentionPass attention, Matrix x) {
    if (compute.beat) compute.beat();
    const kernels::Arena::Scope scope(compute.arena);
    LayerActivations scratch = forward_scratch(compute, weights, layer, x.rows);
    layer_forward(compute, weights, layer, positions, attention, x, scratch);
}

LayerActivations layer_forward_keep(Compute& compute, const Weights& weights, std::int64_t layer,
                                    const Microbatch& batch, Matrix x) {
    if (compute.beat) compute.beat();
    const AttentionShape shape = attention_shape(weights);
    const TokenSplit tokens(weights, batch);
    LayerActivations kept = allocate(compute, weights, layer, tokens, true);
    const auto attention = [&](const AttentionInputs& in, Matrix out) {
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

}  // namespace rankwise::model
