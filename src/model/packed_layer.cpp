#include "src/model/packed_layer.hpp"

#include <initializer_list>

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::PackSide;

void stack_vectors(Compute& compute, const ParameterRows& rows,
                   std::initializer_list<ParameterId> ids, DeviceSpan<float> to) {
    if (to.empty()) return;
    std::int64_t at = 0;
    for (const ParameterId id : ids) {
        const DeviceSpan<const float> part = vector_of(rows, id);
        compute.device.copy(cast_span<const std::byte>(part),
                            cast_span<std::byte>(to.subspan(at, part.size())), compute.stream);
        at += part.size();
    }
}

}  // namespace

LayerSpecs::LayerSpecs(const ModelConfig& config, const Part& part,
                       const LayerContractions& contractions)
    : qkv{config.dtype, part.qkv_size(), contractions.hidden},
      o{config.dtype, config.hidden, contractions.attention},
      gate_up{config.dtype, 2 * part.intermediate.size(), contractions.hidden},
      down{config.dtype, config.hidden, contractions.intermediate},
      qkv_back{config.dtype, config.hidden, contractions.qkv_rows},
      o_back{config.dtype, part.attention_size(), contractions.hidden},
      gate_up_back{config.dtype, config.hidden, contractions.gate_up_rows},
      down_back{config.dtype, part.intermediate.size(), contractions.hidden},
      qkv_bias(config.qkv_bias ? part.qkv_size() : 0),
      gate_up_bias(config.mlp_bias ? 2 * part.intermediate.size() : 0),
      has_mlp(!part.intermediate.empty()) {
    if (config.latent.used()) latent = std::make_unique<LatentSpecs>(config, part, contractions);
    for (std::int64_t layer = 0; layer < config.layers + config.extra_layers && !experts; ++layer) {
        if (config.has_experts(layer))
            experts = std::make_unique<ExpertSpecs>(config, part, contractions);
    }
}

PackedLayer::PackedLayer(const kernels::Device& device, const LayerSpecs& specs, bool experts,
                         Passes passes, const Take& take)
    : specs_(&specs) {
    const auto room = [&](const kernels::PackSpec& spec) { return PackedCopy(device, spec, take); };
    const auto floats = [&](std::int64_t size) {
        return cast_span<float>(take(size * size_of(DType::f32)));
    };
    const bool backward = passes == Passes::forward_and_backward;
    o_ = room(specs.o);
    if (backward) o_back_ = room(specs.o_back);
    if (specs.latent) {
        latent_ = std::make_unique<LatentCopies>(device, *specs.latent, passes, take);
        view_.latent = &latent_->view();
    } else {
        qkv_ = room(specs.qkv);
        qkv_bias_ = floats(specs.qkv_bias);
        if (backward) qkv_back_ = room(specs.qkv_back);
    }
    if (experts) {
        experts_ = std::make_unique<ExpertCopies>(device, *specs.experts, passes, take);
        view_.experts = &experts_->view();
    } else {
        gate_up_ = room(specs.gate_up);
        down_ = room(specs.down);
        gate_up_bias_ = floats(specs.gate_up_bias);
        if (backward) gate_up_back_ = room(specs.gate_up_back);
        if (backward) down_back_ = room(specs.down_back);
    }
    view_.qkv_bias = qkv_bias_;
    view_.gate_up_bias = gate_up_bias_;
    view_.qkv = qkv_.view();
    view_.o = o_.view();
    view_.gate_up = gate_up_.view();
    view_.down = down_.view();
    view_.qkv_back = qkv_back_.view();
    view_.o_back = o_back_.view();
    view_.gate_up_back = gate_up_back_.view();
    view_.down_back = down_back_.view();
}

void PackedLayer::refer_to_vectors(const LayerIds& ids, const ParameterRows& rows) {
    view_.input_norm = vector_of(rows, ids.input_norm);
    view_.post_norm = vector_of(rows, ids.post_norm);
    view_.q_norm = vector_of(rows, ids.q_norm);
    view_.k_norm = vector_of(rows, ids.k_norm);
    view_.o_bias = vector_of(rows, ids.o_bias);
    view_.down_bias = vector_of(rows, ids.down_bias);
}

void PackedLayer::pack_forward(Compute& compute, const LayerIds& ids, const ParameterRows& rows) {
    refer_to_vectors(ids, rows);
    o_.pack(compute, PackSide::outputs, stacked(rows, {ids.o}));
    if (latent_) {
        latent_->pack_forward(compute, ids, rows);
    } else {
        stack_vectors(compute, rows, {ids.q_bias, ids.k_bias, ids.v_bias}, qkv_bias_);
        qkv_.pack(compute, PackSide::outputs, stacked(rows, {ids.q, ids.k, ids.v}));
    }
    if (experts_) {
        experts_->pack_forward(compute, ids, rows);
    } else if (specs_->has_mlp) {
        stack_vectors(compute, rows, {ids.gate_bias, ids.up_bias}, gate_up_bias_);
        gate_up_.pack(compute, PackSide::outputs, stacked(rows, {ids.gate, ids.up}));
        down_.pack(compute, PackSide::outputs, stacked(rows, {ids.down}));
    }
}

void PackedLayer::pack_backward(Compute& compute, const LayerIds& ids, const ParameterRows& rows) {
    refer_to_vectors(ids, rows);
    o_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.o}));
    if (latent_) {
        latent_->pack_backward(compute, ids, rows);
    } else {
        qkv_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.q, ids.k, ids.v}));
    }
    if (experts_) {
        experts_->pack_backward(compute, ids, rows);
    } else if (specs_->has_mlp) {
        gate_up_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.gate, ids.up}));
        down_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.down}));
    }
}

}  // namespace rankwise::model
