#include <array>

#include "src/model/decoder_layer.hpp"
#include "src/model/layer_rows.hpp"
#include "src/model/linear_gradients.hpp"
#include "src/model/norm_gradients.hpp"
#include "src/model/split_linear.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

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

/// dqkv = the gradient of q, k and v as attention read them: normed and rotated.
void attention_backward(Compute& compute, const Weights& weights, const Microbatch& batch,
                        const LayerActivations& kept, ConstMatrix dattention, Matrix dqkv) {
    const ModelConfig& config = weights.config();
    const Part& part = weights.part();
    const QkvColumns columns(part);
    const AttentionShape shape = attention_shape(weights);
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
}

/// The way back through a layer. Takes scratch memory that it does not give back: gradients of
/// weights may lie among it.
class LayerBackward {
  public:
    LayerBackward(Compute& compute, const Weights& weights, std::int64_t layer,
                  const Microbatch& batch, const LayerActivations& kept, Matrix dx,
                  WeightGradients& gradients)
        : compute_(compute),
          weights_(weights),
          w_(weights.layer(layer)),
          ids_(weights.parameters().layer(layer)),
          layer_(layer),
          batch_(batch),
          tokens_(weights, batch),
          kept_(kept),
          dx_(dx),
          gradients_(gradients) {}

    void run() {
        const Matrix dnormed_post = mlp();
        // Attention: x_mid = x_in + o(attention(norm(x_in))).
        const ConstMatrix dmid = all_of_dx();
        show("gradient of what attention gave", dmid);
        if (weights_.split()) output_rows(dmid, {0, dmid.rows});
        add_linears(std::array{Linear{ids_.o, ids_.o_bias, {0, weights_.config().hidden}}}, dmid,
                    kept_.attention);
        // Of the same size: read before, unless that is put off.
        attention(gradients_.again(dnormed_post));
    }

  private:
    /// x_out = x_mid + down(swiglu(gate_up(norm(x_mid)))): dx becomes the gradient of x_mid, of
    /// which attention's follows. @return the gradient of the normed rows
    Matrix mlp() {
        const ModelConfig& config = weights_.config();
        const std::int64_t rows = tokens_.total();
        const bool dense = w_.experts == nullptr && !weights_.part().intermediate.empty();
        const std::int64_t intermediate = dense ? weights_.part().intermediate.size() : 0;
        const ConstMatrix dout = all_of_dx();
        show("gradient of what the MLP gave", dout);
        const Matrix dgate_up = read_by_products(2 * intermediate);
        const Matrix dactivated = compute_.matrix(rows, intermediate, config.dtype);
        const Matrix dnormed = gradients_.matrix(dx_.rows, config.hidden, config.dtype);
        const std::int64_t values = weights_.part().attention_size();
        // With latent attention a gradient reads it too.
        dattention_ = w_.latent != nullptr ? gradients_.matrix(rows, values, config.dtype)
                                           : compute_.matrix(rows, values, config.dtype);
        if (dense)  // before dx, which is what `dout` is, changes
            add_linears(std::array{Linear{ids_.down, -1, {0, config.hidden}}}, dout,
                        kept_.activated);
        gradients_.add([&compute = compute_, id = ids_.down_bias, dout](GradientSink& sink) {
            bias_gradient(compute, id, dout, sink);
        });
        if (w_.experts != nullptr)
            experts_backward(compute_, weights_, layer_, tokens_, kept_.experts, kept_.normed_post,
                             dout, gradients_, dnormed);
        in_rows(compute_, weights_, rows, [&](Range some) {
            if (dense) {
                compute_.device.matmul(
                    {.x = dout.row_range(some), .w = w_.down_back, .y = dactivated.row_range(some)},
                    compute_.stream);
                compute_.device.swiglu_backward({.gate_up = kept_.gate_up.row_range(some),
                                                 .dout = dactivated.row_range(some),
                                                 .dgate_up = dgate_up.row_range(some)},
                                                compute_.stream);
            }
            const Range own = own_of(some);
            if (w_.experts == nullptr)
                row_split_matmul(compute_, weights_, tokens_, "sums:dnormed mlp",
                                 weights_.tensor_sums().intermediate, dgate_up.row_range(some),
                                 w_.gate_up_back, {}, Output::store, dnormed.row_range(own));
            norm_rows(own, dnormed, kept_.x_mid, w_.post_norm, kept_.inv_rms_post);
            if (!weights_.split()) output_rows(dx_, some);
        });
        if (dense)
            add_linears(std::array{Linear{ids_.gate, ids_.gate_bias, {0, intermediate}},
                                   Linear{ids_.up, ids_.up_bias, {intermediate, 2 * intermediate}}},
                        dgate_up, kept_.normed_post);
        norm_gradient(compute_, weights_, tokens_, dnormed, kept_.x_mid, kept_.inv_rms_post,
                      batch_.norm_blocks, ids_.post_norm, gradients_);
        return dnormed;
    }

    /// The gradient of what attention gave, in some rows.
    void output_rows(ConstMatrix dmid, Range rows) {
        compute_.device.matmul(
            {.x = dmid.row_range(rows), .w = w_.o_back, .y = dattention_.row_range(rows)},
            compute_.stream);
    }

    /// From the gradient of what attention gave to that of x_in. @param dnormed  for the normed
    /// rows' gradient
    void attention(Matrix dnormed) {
        if (w_.latent != nullptr) {
            latent_backward(compute_, weights_, layer_, batch_, tokens_, kept_.latent,
                            {.maximum = kept_.maximum, .denominator = kept_.denominator},
                            kept_.normed_in, dattention_, gradients_, dnormed);
            norm_rows({0, dx_.rows}, dnormed, kept_.x_in, w_.input_norm, kept_.inv_rms_in);
        } else {
            queries_keys_values_backward(dnormed);
        }
        norm_gradient(compute_, weights_, tokens_, dnormed, kept_.x_in, kept_.inv_rms_in,
                      batch_.norm_blocks, ids_.input_norm, gradients_);
    }

    void queries_keys_values_backward(Matrix dnormed) {
        const ModelConfig& config = weights_.config();
        const QkvColumns columns(weights_.part());
        const std::span<const std::int32_t> positions = batch_.positions;
        const Matrix dqkv = read_by_products(columns.v.end);
        attention_backward(compute_, weights_, batch_, kept_, dattention_, dqkv);
        if (config.qk_norm) {
            rotate(compute_, weights_, positions, dqkv, true);
            qk_norm_backward(compute_, weights_, layer_, batch_, kept_, dqkv, gradients_);
        }
        in_rows(compute_, weights_, dqkv.rows, [&](Range some) {
            const Matrix rows = dqkv.row_range(some);
            if (!config.qk_norm)
                rotate(compute_, weights_,
                       positions.subspan(static_cast<std::size_t>(some.begin),
                                         static_cast<std::size_t>(some.size())),
                       rows, true);
            const Range own = own_of(some);
            row_split_matmul(compute_, weights_, tokens_, "sums:dnormed attention",
                             weights_.tensor_sums().attention, rows, w_.qkv_back, {}, Output::store,
                             dnormed.row_range(own));
            norm_rows(own, dnormed, kept_.x_in, w_.input_norm, kept_.inv_rms_in);
        });
        add_linears(std::array{Linear{ids_.q, ids_.q_bias, columns.q},
                               Linear{ids_.k, ids_.k_bias, columns.k},
                               Linear{ids_.v, ids_.v_bias, columns.v}},
                    dqkv, kept_.normed_in);
    }

    /// Some of this rank's rows: dx + the gradient through their norm.
    void norm_rows(Range own, ConstMatrix dnormed, ConstMatrix x, DeviceSpan<const float> weight,
                   DeviceSpan<const float> inv_rms) {
        compute_.device.rms_norm_backward({.dy = dnormed.row_range(own),
                                           .x = x.row_range(own),
                                           .weight = weight,
                                           .inv_rms = inv_rms.subspan(own.begin, own.size()),
                                           .dx = dx_.row_range(own),
                                           .output = Output::add},
                                          compute_.stream);
    }

    /// A gradient of all rows. Rows that ranks send each other have no gaps.
    [[nodiscard]] Matrix read_by_products(std::int64_t cols) const {
        const std::int64_t rows = tokens_.total();
        const DType dtype = weights_.config().dtype;
        return weights_.split() ? gradients_.matrix(rows, cols, dtype)
                                : gradients_.matrix_for_products(rows, cols, dtype);
    }
    /// This rank's rows among `some`: all of them, or its own of all.
    [[nodiscard]] Range own_of(Range some) const {
        return weights_.split() ? Range{0, dx_.rows} : some;
    }
    /// The gradient of all rows of the stream, as work that is put off will find it.
    [[nodiscard]] ConstMatrix all_of_dx() {
        return gradients_.as_it_is(
            whole_rows(compute_, weights_, tokens_, "activations:gradient", dx_));
    }
    template <class Linears>
    void add_linears(const Linears& linears, ConstMatrix dy, ConstMatrix x) {
        gradients_.add([&compute = compute_, &batch = batch_, linears, dy, x](GradientSink& sink) {
            linear_gradients(compute, linears, dy, x, sink, batch.segment_borders);
        });
    }
    void show(std::string_view op, ConstMatrix gradient) const {
        if (compute_.probe)
            compute_.probe({layer_, op, gradient, /*whole=*/true, /*backward=*/true});
    }

    Compute& compute_;
    const Weights& weights_;
    const LayerWeights& w_;
    const LayerIds& ids_;
    std::int64_t layer_;
    const Microbatch& batch_;
    TokenSplit tokens_;
    const LayerActivations& kept_;
    Matrix dx_;
    WeightGradients& gradients_;
    Matrix dattention_;
};

}  // namespace

void layer_backward(Compute& compute, const Weights& weights, std::int64_t layer,
                    const Microbatch& batch, const LayerActivations& kept, Matrix dx,
                    GradientSink& gradients) {
    if (compute.beat) compute.beat();
    const kernels::Arena::Scope scope(compute.arena);
    WeightGradients now(compute, &gradients, nullptr);
    LayerBackward(compute, weights, layer, batch, kept, dx, now).run();
    gradients.layer_done(layer);
}

void layer_backward_input(Compute& compute, const Weights& weights, std::int64_t layer,
                          const Microbatch& batch, const LayerActivations& kept, Matrix dx,
                          WeightWork& later) {
    if (compute.beat) compute.beat();
    const kernels::Arena::Scope scope(compute.arena);
    WeightGradients put_off(compute, nullptr, &later);
    LayerBackward(compute, weights, layer, batch, kept, dx, put_off).run();
    later.emplace_back([layer](GradientSink& sink) { sink.layer_done(layer); });
}

}  // namespace rankwise::model
