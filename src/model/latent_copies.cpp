#include "src/model/latent_copies.hpp"

namespace rankwise::model {
namespace {

using kernels::PackSide;
using kernels::PackSpec;

PackSpec straight(std::int64_t columns, std::int64_t terms) {
    return {DType::f32, columns, Contraction::straight(terms)};
}

std::vector<kernels::PackedWeight> views(const std::vector<PackedCopy>& copies) {
    std::vector<kernels::PackedWeight> all;
    for (const PackedCopy& copy : copies) all.push_back(copy.view());
    return all;
}

}  // namespace

LatentSpecs::LatentSpecs(const ModelConfig& config, const Part& part,
                         const LayerContractions& contractions)
    : sizes(config.latent), heads(part.heads.size()) {
    const std::int64_t q_in = sizes.q_rank > 0 ? sizes.q_rank : config.hidden;
    if (sizes.q_rank > 0) q_a = straight(sizes.q_rank, config.hidden);
    q = straight(part.q_size(), q_in);
    kv_a = straight(sizes.key_dim(), config.hidden);
    k_up = straight(sizes.kv_rank, sizes.nope_dim);
    v_up = straight(sizes.value_dim, sizes.kv_rank);
    if (sizes.q_rank > 0) q_a_back = straight(config.hidden, sizes.q_rank);
    q_back = {DType::f32, q_in, contractions.qkv_rows};
    kv_a_back = straight(config.hidden, sizes.key_dim());
    k_up_back = straight(sizes.nope_dim, sizes.kv_rank);
    v_up_back = straight(sizes.kv_rank, sizes.value_dim);
}

LatentCopies::LatentCopies(const kernels::Device& device, const LatentSpecs& specs, Passes passes,
                           const Take& take)
    : specs_(&specs) {
    const auto room = [&](const PackSpec& spec) { return PackedCopy(device, spec, take); };
    const auto rooms = [&](const PackSpec& spec) {
        std::vector<PackedCopy> all;
        for (std::int64_t head = 0; head < specs.heads; ++head) all.push_back(room(spec));
        return all;
    };
    const bool compressed = specs.sizes.q_rank > 0;
    if (compressed) q_a_ = room(specs.q_a);
    q_ = room(specs.q);
    kv_a_ = room(specs.kv_a);
    k_up_ = rooms(specs.k_up);
    v_up_ = rooms(specs.v_up);
    view_ = {.q_a = q_a_.view(),
             .q = q_.view(),
             .kv_a = kv_a_.view(),
             .k_up = views(k_up_),
             .v_up = views(v_up_)};
    if (passes == Passes::forward) return;
    if (compressed) q_a_back_ = room(specs.q_a_back);
    q_back_ = room(specs.q_back);
    kv_a_back_ = room(specs.kv_a_back);
    k_up_back_ = rooms(specs.k_up_back);
    v_up_back_ = rooms(specs.v_up_back);
    view_.q_a_back = q_a_back_.view();
    view_.q_back = q_back_.view();
    view_.kv_a_back = kv_a_back_.view();
    view_.k_up_back = views(k_up_back_);
    view_.v_up_back = views(v_up_back_);
}

void LatentCopies::refer_to_vectors(const LayerIds& ids, const ParameterRows& rows) {
    view_.q_a_norm = vector_of(rows, ids.q_a_norm);
    view_.kv_a_norm = vector_of(rows, ids.kv_a_norm);
}

namespace {

/// Calls each(head, rows of W_k, rows of W_v) for the heads of kv_b.
template <class Each>
void for_heads(const LatentSpecs& specs, const LayerIds& ids, const ParameterRows& rows,
               const Each& each) {
    const std::int64_t unit = specs.sizes.nope_dim + specs.sizes.value_dim;
    for (std::int64_t head = 0; head < specs.heads; ++head) {
        const std::int64_t begin = head * unit;
        const std::int64_t values = begin + specs.sizes.nope_dim;
        each(static_cast<std::size_t>(head), rows_within(rows, ids.kv_b, {begin, values}),
             rows_within(rows, ids.kv_b, {values, begin + unit}));
    }
}

}  // namespace

void LatentCopies::pack_forward(Compute& compute, const LayerIds& ids, const ParameterRows& rows) {
    refer_to_vectors(ids, rows);
    const bool compressed = specs_->sizes.q_rank > 0;
    if (compressed) q_a_.pack(compute, PackSide::outputs, stacked(rows, {ids.q_a}));
    q_.pack(compute, PackSide::outputs, stacked(rows, {compressed ? ids.q_b : ids.q}));
    kv_a_.pack(compute, PackSide::outputs, stacked(rows, {ids.kv_a}));
    for_heads(*specs_, ids, rows, [&](std::size_t head, const auto& w_k, const auto& w_v) {
        k_up_[head].pack(compute, PackSide::inputs, w_k);
        v_up_[head].pack(compute, PackSide::outputs, w_v);
    });
}

void LatentCopies::pack_backward(Compute& compute, const LayerIds& ids, const ParameterRows& rows) {
    refer_to_vectors(ids, rows);
    const bool compressed = specs_->sizes.q_rank > 0;
    if (compressed) q_a_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.q_a}));
    q_back_.pack(compute, PackSide::inputs, stacked(rows, {compressed ? ids.q_b : ids.q}));
    kv_a_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.kv_a}));
    for_heads(*specs_, ids, rows, [&](std::size_t head, const auto& w_k, const auto& w_v) {
        k_up_back_[head].pack(compute, PackSide::outputs, w_k);
        v_up_back_[head].pack(compute, PackSide::inputs, w_v);
    });
}

}  // namespace rankwise::model
