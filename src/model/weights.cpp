#include "src/model/weights.hpp"

#include <array>

#include "src/model/rope_table.hpp"

namespace rankwise::model {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::PackSide;

Packed::Packed(kernels::Device& device, kernels::PackSpec spec)
    : spec_(std::make_unique<kernels::PackSpec>(std::move(spec))),
      data_(device, device.packed_bytes(*spec_)) {}

kernels::PackedWeight Packed::view() const {
    return {spec_.get(), data_.span()};
}

void Packed::pack(Compute& compute, PackSide side, std::span<const ConstMatrix> stacked) {
    compute.device.pack(*spec_, side, stacked, data_.span(), compute.stream);
}

Weights::Weights(kernels::Device& device, const ModelConfig& config, Passes passes)
    : config_(config),
      passes_(passes),
      parameters_(decoder_parameters(config)),
      contractions_(layer_contractions(config)) {
    constexpr std::int64_t kAlign = 16;  // floats in 64 bytes
    std::int64_t size = 0;
    for (const Parameter& parameter : table().rows()) {
        offsets_.push_back(size);
        size += round_up(parameter.shape.size(), kAlign);
    }
    masters_ = kernels::DeviceBuffer<float>(device, size);

    const auto packed = [&](std::int64_t columns, const Contraction& contraction) {
        return Packed(device, {DType::f32, columns, contraction});
    };
    const std::int64_t hidden = config.hidden;
    for (std::int64_t index = 0; index < config.layers; ++index) {
        const LayerIds& ids = parameters_.layers[static_cast<std::size_t>(index)];
        Layer& layer = layers_.emplace_back();
        layer.qkv = packed(config.qkv_size(), contractions_.hidden);
        layer.o = packed(hidden, contractions_.attention);
        layer.gate_up = packed(2 * config.intermediate, contractions_.hidden);
        layer.down = packed(hidden, contractions_.intermediate);
        LayerWeights& view = layer.view;
        view = {.input_norm = vector(ids.input_norm),
                .post_norm = vector(ids.post_norm),
                .q_norm = vector(ids.q_norm),
                .k_norm = vector(ids.k_norm),
                .o_bias = vector(ids.o_bias),
                .down_bias = vector(ids.down_bias),
                .qkv = layer.qkv.view(),
                .o = layer.o.view(),
                .gate_up = layer.gate_up.view(),
                .down = layer.down.view()};
        if (config.qkv_bias) {
            layer.qkv_bias = kernels::DeviceBuffer<float>(device, config.qkv_size());
            view.qkv_bias = layer.qkv_bias.span();
        }
        if (config.mlp_bias) {
            layer.gate_up_bias = kernels::DeviceBuffer<float>(device, 2 * config.intermediate);
            view.gate_up_bias = layer.gate_up_bias.span();
        }
        if (passes == Passes::forward_and_backward) {
            layer.qkv_back = packed(hidden, contractions_.qkv_rows);
            layer.o_back = packed(config.q_size(), contractions_.hidden);
            layer.gate_up_back = packed(hidden, contractions_.gate_up_rows);
            layer.down_back = packed(config.intermediate, contractions_.hidden);
            view.qkv_back = layer.qkv_back.view();
            view.o_back = layer.o_back.view();
            view.gate_up_back = layer.gate_up_back.view();
            view.down_back = layer.down_back.view();
        }
    }
    head_ = packed(config.vocab_size, contractions_.hidden);

    const RopeTable rope = rope_table(config.rope, config.head_dim, config.max_position);
    const std::unique_ptr<kernels::Stream> stream = device.make_stream();
    cosine_ = kernels::DeviceBuffer<float>(device, narrow<std::int64_t>(rope.cosine.size()));
    sine_ = kernels::DeviceBuffer<float>(device, narrow<std::int64_t>(rope.sine.size()));
    device.upload(std::span<const float>(rope.cosine), cosine_.span(), *stream);
    device.upload(std::span<const float>(rope.sine), sine_.span(), *stream);
}

DeviceSpan<float> Weights::master_span(ParameterId id) {
    return masters_.span().subspan(offsets_[static_cast<std::size_t>(id)],
                                   table()[id].shape.size());
}

Matrix Weights::master(ParameterId id) {
    const Shape shape = table()[id].shape;
    return {master_span(id), shape.rows, shape.cols};
}

ConstMatrix Weights::master(ParameterId id) const {
    return const_cast<Weights*>(this)->master(id);
}

DeviceSpan<const float> Weights::vector(ParameterId id) const {
    if (id < 0) return {};
    return const_cast<Weights*>(this)->master_span(id);
}

DeviceSpan<const float> Weights::final_norm() const {
    return vector(parameters_.final_norm);
}

void Weights::pack(Compute& compute) {
    const Weights& self = *this;
    for (std::size_t index = 0; index < layers_.size(); ++index) {
        const LayerIds& ids = parameters_.layers[index];
        Layer& layer = layers_[index];
        const std::array qkv{self.master(ids.q), self.master(ids.k), self.master(ids.v)};
        const std::array o{self.master(ids.o)};
        const std::array gate_up{self.master(ids.gate), self.master(ids.up)};
        const std::array down{self.master(ids.down)};
        layer.qkv.pack(compute, PackSide::outputs, qkv);
        layer.o.pack(compute, PackSide::outputs, o);
        layer.gate_up.pack(compute, PackSide::outputs, gate_up);
        layer.down.pack(compute, PackSide::outputs, down);
        if (passes_ == Passes::forward_and_backward) {
            layer.qkv_back.pack(compute, PackSide::inputs, qkv);
            layer.o_back.pack(compute, PackSide::inputs, o);
            layer.gate_up_back.pack(compute, PackSide::inputs, gate_up);
            layer.down_back.pack(compute, PackSide::inputs, down);
        }
        const auto stack = [&](std::span<const ParameterId> from, DeviceSpan<float> to) {
            std::int64_t at = 0;
            for (const ParameterId id : from) {
                const DeviceSpan<const float> part = vector(id);
                compute.device.copy(cast_span<const std::byte>(part),
                                    cast_span<std::byte>(to.subspan(at, part.size())),
                                    compute.stream);
                at += part.size();
            }
        };
        if (config_.qkv_bias)
            stack(std::array{ids.q_bias, ids.k_bias, ids.v_bias}, layer.qkv_bias.span());
        if (config_.mlp_bias)
            stack(std::array{ids.gate_bias, ids.up_bias}, layer.gate_up_bias.span());
    }
    const std::array head{self.head()};
    head_.pack(compute, PackSide::outputs, head);
}

void Weights::copy_from(const Weights& other, Compute& compute) {
    ensure(config_ == other.config_, "weights of another model were to be copied");
    compute.device.copy(cast_span<const std::byte>(DeviceSpan<const float>(other.masters_.span())),
                        cast_span<std::byte>(masters_.span()), compute.stream);
    pack(compute);
}

UInt128 Weights::digest(ParameterId id, Compute& compute) const {
    const Parameter& parameter = table()[id];
    const std::vector<Range> pieces = digest_pieces(parameter, config_.tree().leaves());
    return compute.device.digest({.x = master(id), .name = parameter.name, .pieces = pieces},
                                 compute.stream);
}

UInt128 Weights::digest(Compute& compute) const {
    UInt128 sum;
    for (ParameterId id = 0; id < table().count(); ++id) sum += digest(id, compute);
    return sum;
}

std::vector<Range> digest_pieces(const Parameter& parameter, int leaves) {
    const bool columns_split = parameter.split == TensorSplit::columns ||
                               (parameter.split == TensorSplit::rows && parameter.shape.vector);
    if (!columns_split) return {{0, parameter.shape.cols}};
    const int parts = parameter.leaf_parts > 0 ? narrow<int>(parameter.leaf_parts) : leaves;
    std::vector<Range> pieces;
    for (const Range range : leaf_ranges(parameter.shape.cols, parts, parameter.leaf_unit)) {
        if (!range.empty()) pieces.push_back(range);
    }
    return pieces;
}

}  // namespace rankwise::model
