#include "src/model/mtp.hpp"

#include "src/model/embedding.hpp"
#include "src/model/split_linear.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::Output;

/// Columns of what eh_proj reads.
struct JoinedColumns {
    explicit JoinedColumns(std::int64_t width) : embedding{0, width}, hidden{width, 2 * width} {}
    Range embedding, hidden;
};

std::vector<std::int64_t> rows_of_further(const Microbatch& batch) {
    std::vector<std::int64_t> rows;
    for (const HeadRow& row : batch.further) rows.push_back(row.row);
    return rows;
}

/// The gradient of the weight of a norm over all rows.
void whole_norm_gradient(Compute& compute, const Microbatch& batch, ParameterId id, ConstMatrix dy,
                         ConstMatrix x, DeviceSpan<const float> inv_rms, GradientSink& gradients) {
    const GradientSlot slot = gradients.slot(id);
    compute.device.rms_norm_weight_gradient({.dy = dy,
                                             .x = x,
                                             .inv_rms = inv_rms,
                                             .blocks = batch.norm_blocks,
                                             .dw = slot.vector(),
                                             .output = slot.output},
                                            compute.stream);
}

}  // namespace

MtpActivations mtp_forward(Compute& compute, const Weights& weights, const Microbatch& batch,
                           ConstMatrix hidden, Matrix predicting) {
    kernels::Device& device = compute.device;
    const std::int64_t rows = batch.rows();
    const std::int64_t width = weights.config().hidden;
    const JoinedColumns columns(width);
    const TokenSplit tokens(weights, batch);
    MtpActivations at;
    const auto norm = [&](ConstMatrix x, DeviceSpan<const float> weight, Matrix y,
                          DeviceSpan<float> inv_rms) {
        device.rms_norm({.x = x,
                         .weight = weight,
                         .eps = static_cast<float>(weights.config().rms_norm_eps),
                         .y = y,
                         .inv_rms = inv_rms},
                        compute.stream);
    };
    for (DeviceSpan<float>* span : {&at.inv_rms_embedded, &at.inv_rms_hidden, &at.inv_rms_top})
        *span = compute.kept().take<float>(rows);
    at.embedded = compute.kept_matrix(rows, width);
    weights.gather_mtp_embedding(compute);
    look_up(compute, weights, weights.mtp_embedding(), batch.following, at.embedded);
    weights.gather_layer(compute, weights.mtp_layer(), Copies::forward, std::nullopt);
    const MtpWeights& w = weights.mtp();
    at.joined = compute.kept_matrix(rows, 2 * width);
    norm(at.embedded, w.embedding_norm, at.joined.col_range(columns.embedding),
         at.inv_rms_embedded);
    norm(hidden, w.hidden_norm, at.joined.col_range(columns.hidden), at.inv_rms_hidden);

    const Matrix x = compute.kept_matrix(tokens.mine().size(), width);
    device.matmul({.x = at.joined.row_range(tokens.mine()), .w = w.projection, .y = x},
                  compute.stream);
    at.layer = layer_forward_keep(compute, weights, weights.mtp_layer(), batch, x);
    at.top = x;
    if (tokens.split()) {
        at.top = compute.kept_matrix(rows, width);
        gather_rows(compute, weights, tokens, "activations:mtp", x, at.top);
    }
    const kernels::Arena::Scope scope(compute.arena);
    const Matrix normed = compute.matrix(rows, width);
    norm(at.top, w.head_norm, normed, at.inv_rms_top);
    device.gather_rows({.from = normed, .rows = rows_of_further(batch), .to = predicting},
                       compute.stream);
    return at;
}

Matrix mtp_backward(Compute& compute, const Weights& weights, const Microbatch& batch,
                    const MtpActivations& kept, ConstMatrix hidden, ConstMatrix dpredicting,
                    Matrix dhidden, GradientSink& gradients) {
    kernels::Device& device = compute.device;
    const std::int64_t rows = batch.rows();
    const std::int64_t width = weights.config().hidden;
    const JoinedColumns columns(width);
    const TokenSplit tokens(weights, batch);
    const MtpIds& ids = weights.mtp_ids();
    gather_mtp_backward(compute, weights);
    const MtpWeights& w = weights.mtp();

    const Matrix dnormed = compute.matrix(rows, width);
    device.scatter_rows({.from = dpredicting, .rows = rows_of_further(batch), .to = dnormed},
                        compute.stream);
    const Matrix dtop = compute.matrix(rows, width);
    device.rms_norm_backward({.dy = dnormed,
                              .x = kept.top,
                              .weight = w.head_norm,
                              .inv_rms = kept.inv_rms_top,
                              .dx = dtop},
                             compute.stream);
    const Matrix dx = dtop.row_range(tokens.mine());
    layer_backward(compute, weights, weights.mtp_layer(), batch, kept.layer, dx, gradients);
    whole_norm_gradient(compute, batch, ids.head_norm, dnormed, kept.top, kept.inv_rms_top,
                        gradients);

    const Matrix djoined_own = compute.matrix(dx.rows, 2 * width);
    device.matmul({.x = dx, .w = w.projection_back, .y = djoined_own}, compute.stream);
    const Matrix dprojected = whole_rows(compute, weights, tokens, "activations:gradient", dx);
    shared_gradient(compute, weights, ids.projection, dprojected, kept.joined, gradients);
    const Matrix djoined =
        whole_rows(compute, weights, tokens, "activations:gradient", djoined_own);
    const ConstMatrix dembedding = djoined.col_range(columns.embedding);
    whole_norm_gradient(compute, batch, ids.embedding_norm, dembedding, kept.embedded,
                        kept.inv_rms_embedded, gradients);
    const ConstMatrix dhidden_normed = djoined.col_range(columns.hidden);
    whole_norm_gradient(compute, batch, ids.hidden_norm, dhidden_normed, hidden,
                        kept.inv_rms_hidden, gradients);
    device.rms_norm_backward({.dy = dhidden_normed,
                              .x = hidden,
                              .weight = w.hidden_norm,
                              .inv_rms = kept.inv_rms_hidden,
                              .dx = dhidden,
                              .output = Output::add},
                             compute.stream);
    const Matrix dembedded = compute.matrix(rows, width);
    device.rms_norm_backward({.dy = dembedding,
                              .x = kept.embedded,
                              .weight = w.embedding_norm,
                              .inv_rms = kept.inv_rms_embedded,
                              .dx = dembedded},
                             compute.stream);
    return dembedded;
}

void gather_mtp_backward(Compute& compute, const Weights& weights) {
    const std::int64_t layer = weights.mtp_layer();
    // Who computes experts that are shared out computes what they keep inside again.
    if (weights.shares_experts() && weights.config().has_experts(layer))
        weights.gather_layer(compute, layer, Copies::forward, std::nullopt);
    weights.gather_layer(compute, layer, Copies::backward, std::nullopt);
}

}  // namespace rankwise::model
