#include "src/model/mtp_copies.hpp"

namespace rankwise::model {

using kernels::PackSide;

MtpCopies::MtpCopies(const kernels::Device& device, const LayerSpecs& specs, std::int64_t hidden,
                     bool experts, const Take& take)
    : projection_spec_{DType::f32, hidden, Contraction::straight(2 * hidden)},
      projection_back_spec_{DType::f32, 2 * hidden, Contraction::straight(hidden)},
      layer_(device, specs, experts, Passes::forward_and_backward, take),
      projection_(device, projection_spec_, take),
      projection_back_(device, projection_back_spec_, take) {
    view_.projection = projection_.view();
    view_.projection_back = projection_back_.view();
}

void MtpCopies::refer_to_vectors(const MtpIds& ids, const ParameterRows& rows) {
    view_.embedding_norm = vector_of(rows, ids.embedding_norm);
    view_.hidden_norm = vector_of(rows, ids.hidden_norm);
    view_.head_norm = vector_of(rows, ids.head_norm);
}

void MtpCopies::pack_forward(Compute& compute, const MtpIds& ids, const ParameterRows& rows) {
    refer_to_vectors(ids, rows);
    layer_.pack_forward(compute, ids.layer, rows);
    projection_.pack(compute, PackSide::outputs, stacked(rows, {ids.projection}));
}

void MtpCopies::pack_backward(Compute& compute, const MtpIds& ids, const ParameterRows& rows) {
    refer_to_vectors(ids, rows);
    layer_.pack_backward(compute, ids.layer, rows);
    projection_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.projection}));
}

}  // namespace rankwise::model
