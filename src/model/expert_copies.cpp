#include "src/model/expert_copies.hpp"

namespace rankwise::model {

using kernels::PackSide;
using kernels::PackSpec;

ExpertSpecs::ExpertSpecs(const ModelConfig& config, const Part& part,
                         const LayerContractions& contractions)
    : experts(part.experts), has_shared(!part.shared.empty()) {
    const auto straight = [](std::int64_t columns, std::int64_t terms) {
        return PackSpec{DType::f32, columns, Contraction::straight(terms)};
    };
    const std::int64_t hidden = config.hidden;
    const std::int64_t inner = config.experts.intermediate;
    router = straight(config.experts.routed, hidden);
    router_back = straight(hidden, config.experts.routed);
    routed = {.gate_up = straight(2 * inner, hidden),
              .down = straight(hidden, inner),
              .gate_up_back = straight(hidden, 2 * inner),
              .down_back = straight(inner, hidden)};
    if (!has_shared) return;
    const std::int64_t wide = part.shared.size();
    shared = {.gate_up = straight(2 * wide, hidden),
              .down = {DType::f32, hidden, contractions.shared},
              .gate_up_back = {DType::f32, hidden, contractions.shared_rows},
              .down_back = straight(wide, hidden)};
}

ExpertCopies::ExpertCopies(const kernels::Device& device, const ExpertSpecs& specs, Passes passes,
                           const Take& take)
    : specs_(&specs) {
    const auto room = [&](const PackSpec& spec) { return PackedCopy(device, spec, take); };
    const bool backward = passes == Passes::forward_and_backward;
    const auto rooms = [&](const ExpertSpecs::Mlp& mlp) {
        Mlp copies{.gate_up = room(mlp.gate_up), .down = room(mlp.down)};
        if (backward) copies.gate_up_back = room(mlp.gate_up_back);
        if (backward) copies.down_back = room(mlp.down_back);
        return copies;
    };
    router_ = room(specs.router);
    if (backward) router_back_ = room(specs.router_back);
    view_.router = router_.view();
    view_.router_back = router_back_.view();
    for (std::int64_t expert = specs.experts.begin; expert < specs.experts.end; ++expert) {
        routed_.push_back(rooms(specs.routed));
        view_.routed.push_back(routed_.back().view());
    }
    if (!specs.has_shared) return;
    shared_ = rooms(specs.shared);
    view_.shared = shared_.view();
}

void ExpertCopies::Mlp::pack_forward(Compute& compute, const MlpIds& ids,
                                     const ParameterRows& rows) {
    gate_up.pack(compute, PackSide::outputs, stacked(rows, {ids.gate, ids.up}));
    down.pack(compute, PackSide::outputs, stacked(rows, {ids.down}));
}

void ExpertCopies::Mlp::pack_backward(Compute& compute, const MlpIds& ids,
                                      const ParameterRows& rows) {
    gate_up_back.pack(compute, PackSide::inputs, stacked(rows, {ids.gate, ids.up}));
    down_back.pack(compute, PackSide::inputs, stacked(rows, {ids.down}));
}

std::span<const MlpIds> ExpertCopies::own_ids(const LayerIds& ids) const {
    return std::span(ids.experts)
        .subspan(static_cast<std::size_t>(specs_->experts.begin), routed_.size());
}

void ExpertCopies::pack_forward(Compute& compute, const LayerIds& ids, const ParameterRows& rows) {
    view_.bias = vector_of(rows, ids.router_bias);
    router_.pack(compute, PackSide::outputs, stacked(rows, {ids.router}));
    for (std::size_t i = 0; i < routed_.size(); ++i)
        routed_[i].pack_forward(compute, own_ids(ids)[i], rows);
    if (specs_->has_shared) shared_.pack_forward(compute, ids.shared, rows);
}

void ExpertCopies::pack_backward(Compute& compute, const LayerIds& ids, const ParameterRows& rows) {
    view_.bias = vector_of(rows, ids.router_bias);
    router_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.router}));
    for (std::size_t i = 0; i < routed_.size(); ++i)
        routed_[i].pack_backward(compute, own_ids(ids)[i], rows);
    if (specs_->has_shared) shared_.pack_backward(compute, ids.shared, rows);
}

}  // namespace rankwise::model
