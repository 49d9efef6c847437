#include "src/model/packed_layer.hpp"

#include <initializer_list>
#include <vector>

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::PackSide;

std::vector<ConstMatrix> stacked(const PackedLayer::Rows& rows,
                                 std::initializer_list<ParameterId> ids) {
    std::vector<ConstMatrix> all;
    for (const ParameterId id : ids) {
        const std::span<const ConstMatrix> some = rows(id);
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

DeviceSpan<const float> vector(const PackedLayer::Rows& rows, ParameterId id) {
    if (id < 0) return {};
    const std::span<const ConstMatrix> some = rows(id);
    ensure(some.size() == 1, "a vector in {} pieces", some.size());
    return {reinterpret_cast<const float*>(some[0].handle), some[0].cols};
}

void stack_vectors(Compute& compute, const PackedLayer::Rows& rows,
                   std::initializer_list<ParameterId> ids, DeviceSpan<float> to) {
    if (to.empty()) return;
    std::int64_t at = 0;
    for (const ParameterId id : ids) {
        const DeviceSpan<const float> part = vector(rows, id);
        compute.device.copy(cast_span<const std::byte>(part),
                            cast_span<std::byte>(to.subspan(at, part.size())), compute.stream);
        at += part.size();
    }
}

}  // namespace

LayerSpecs::LayerSpecs(const ModelConfig& config, const Part& part,
                       const LayerContractions& contractions)
    : qkv{DType::f32, part.qkv_size(), contractions.hidden},
      o{DType::f32, config.hidden, contractions.attention},
      gate_up{DType::f32, 2 * part.intermediate.size(), contractions.hidden},
      down{DType::f32, config.hidden, contractions.intermediate},
      qkv_back{DType::f32, config.hidden, contractions.qkv_rows},
      o_back{DType::f32, part.q_size(), contractions.hidden},
      gate_up_back{DType::f32, config.hidden, contractions.gate_up_rows},
      down_back{DType::f32, part.intermediate.size(), contractions.hidden},
      qkv_bias(config.qkv_bias ? part.qkv_size() : 0),
      gate_up_bias(config.mlp_bias ? 2 * part.intermediate.size() : 0),
      has_mlp(!part.intermediate.empty()) {}

PackedLayer::PackedLayer(const kernels::Device& device, const LayerSpecs& specs, Passes passes,
                         const Take& take)
    : specs_(&specs) {
    const auto room = [&](const kernels::PackSpec& spec) { return PackedCopy(device, spec, take); };
    const auto floats = [&](std::int64_t size) {
        return cast_span<float>(take(size * size_of(DType::f32)));
    };
    qkv_ = room(specs.qkv);
    o_ = room(specs.o);
    gate_up_ = room(specs.gate_up);
    down_ = room(specs.down);
    qkv_bias_ = floats(specs.qkv_bias);
    gate_up_bias_ = floats(specs.gate_up_bias);
    view_ = {.qkv_bias = qkv_bias_,
             .gate_up_bias = gate_up_bias_,
             .qkv = qkv_.view(),
             .o = o_.view(),
             .gate_up = gate_up_.view(),
             .down = down_.view()};
    if (passes == Passes::forward) return;
    qkv_back_ = room(specs.qkv_back);
    o_back_ = room(specs.o_back);
    gate_up_back_ = room(specs.gate_up_back);
    down_back_ = room(specs.down_back);
    view_.qkv_back = qkv_back_.view();
    view_.o_back = o_back_.view();
    view_.gate_up_back = gate_up_back_.view();
    view_.down_back = down_back_.view();
}

void PackedLayer::refer_to_vectors(const LayerIds& ids, const Rows& rows) {
    view_.input_norm = vector(rows, ids.input_norm);
    view_.post_norm = vector(rows, ids.post_norm);
    view_.q_norm = vector(rows, ids.q_norm);
    view_.k_norm = vector(rows, ids.k_norm);
    view_.o_bias = vector(rows, ids.o_bias);
    view_.down_bias = vector(rows, ids.down_bias);
}

void PackedLayer::pack_forward(Compute& compute, const LayerIds& ids, const Rows& rows) {
    refer_to_vectors(ids, rows);
    stack_vectors(compute, rows, {ids.q_bias, ids.k_bias, ids.v_bias}, qkv_bias_);
    stack_vectors(compute, rows, {ids.gate_bias, ids.up_bias}, gate_up_bias_);
    qkv_.pack(compute, PackSide::outputs, stacked(rows, {ids.q, ids.k, ids.v}));
    o_.pack(compute, PackSide::outputs, stacked(rows, {ids.o}));
    if (!specs_->has_mlp) return;
    gate_up_.pack(compute, PackSide::outputs, stacked(rows, {ids.gate, ids.up}));
    down_.pack(compute, PackSide::outputs, stacked(rows, {ids.down}));
}

void PackedLayer::pack_backward(Compute& compute, const LayerIds& ids, const Rows& rows) {
    refer_to_vectors(ids, rows);
    qkv_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.q, ids.k, ids.v}));
    o_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.o}));
    if (!specs_->has_mlp) return;
    gate_up_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.gate, ids.up}));
    down_back_.pack(compute, PackSide::inputs, stacked(rows, {ids.down}));
}

}  // namespace rankwise::model
