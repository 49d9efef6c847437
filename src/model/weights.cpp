#include "src/model/weights.hpp"

#include <array>

#include "src/model/rope_table.hpp"

namespace rankwise::model {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::PackSide;

namespace {

TensorPlace place_of(const parallel::Communicator* tensor) {
    return tensor == nullptr ? TensorPlace{} : TensorPlace{tensor->size(), tensor->rank()};
}

PipelinePlace place_of(const PipelineAxis& pipeline) {
    if (pipeline.axis == nullptr) return {};
    return {pipeline.axis->size(), pipeline.axis->rank(), pipeline.virtual_stages};
}

TensorSums sums_of(const ModelConfig& config, const Part& mine) {
    const int degree = mine.place.degree;
    TensorSums out;
    out.attention = sums::RankTree::all(config.tree(), degree);
    out.intermediate = out.vocabulary = out.k_norm = out.attention;
    for (int rank = 0; rank < degree; ++rank) {
        const auto at = static_cast<std::size_t>(rank);
        const Part part = part_of(config, {degree, rank});
        out.intermediate.present[at] = !part.intermediate.empty();
        out.vocabulary.present[at] = !part.vocabulary.empty();
        out.k_norm.present[at] = part.first_holder;
    }
    const auto kv_heads = narrow<int>(config.kv_heads);
    if (degree > kv_heads) {
        const std::int64_t sharers = degree / kv_heads;
        const std::int64_t first = mine.kv_heads.begin * sharers;
        out.shared_kv = {config.tree().above(degree).below(kv_heads),
                         {first, first + sharers},
                         std::vector<bool>(static_cast<std::size_t>(sharers), true)};
    }
    return out;
}

}  // namespace

Packed::Packed(kernels::Device& device, kernels::PackSpec spec)
    : spec_(std::make_unique<kernels::PackSpec>(std::move(spec))),
      data_(device, device.packed_bytes(*spec_)) {}

kernels::PackedWeight Packed::view() const {
    return {spec_.get(), data_.span()};
}

void Packed::pack(Compute& compute, PackSide side, std::span<const ConstMatrix> stacked) {
    compute.device.pack(*spec_, side, stacked, data_.span(), compute.stream);
}

Weights::Weights(kernels::Device& device, const ModelConfig& config, Passes passes,
                 parallel::Communicator* tensor, PipelineAxis pipeline)
    : config_(config),
      passes_(passes),
      tensor_(tensor),
      pipeline_(pipeline),
      part_(part_of(config, place_of(tensor))),
      pipeline_part_(model::pipeline_part(config, place_of(pipeline))),
      parameters_(decoder_parameters(config)),
      tensor_sums_(sums_of(config, part_)),
      vocabulary_(config, part_.place.degree),
      contractions_(layer_contractions(config, part_)) {
    constexpr std::int64_t kAlign = 16;  // floats in 64 bytes
    std::int64_t size = 0;
    const int leaves = config.tree().leaves();
    for (ParameterId id = 0; id < table().count(); ++id) {
        const Parameter& parameter = table()[id];
        Box box = part_box(parameter, leaves, part_.place);
        if (!holds(pipeline_part_, parameters_, id)) box.rows = {};
        boxes_.push_back(box);
        shapes_.push_back({box.rows.size(), box.cols.size(), parameter.shape.vector});
        counts_.push_back(part_counts(parameter, leaves, part_.place));
        frozen_.push_back(!parameter.trained);
        offsets_.push_back(size);
        size += round_up(shapes_.back().size(), kAlign);
    }
    masters_ = kernels::DeviceBuffer<float>(device, size);

    const auto packed = [&](std::int64_t columns, const Contraction& contraction) {
        return Packed(device, {DType::f32, columns, contraction});
    };
    const std::int64_t hidden = config.hidden;
    const std::int64_t qkv = part_.qkv_size();
    const std::int64_t intermediate = part_.intermediate.size();
    latent_specs_ = std::make_unique<LatentSpecs>(config, part_, contractions_);
    expert_specs_ = std::make_unique<ExpertSpecs>(config, contractions_);
    for (std::int64_t index = 0; index < config.layers; ++index) {
        if (!pipeline_part_.holds_layer(index)) continue;
        const LayerIds& ids = parameters_.layers[static_cast<std::size_t>(index)];
        Layer& layer = layers_.emplace_back();
        const Take take = [&](std::int64_t bytes) {
            return layer.memory.emplace_back(device, bytes).span();
        };
        const bool latent = config.latent.used();
        const bool experts = config.has_experts(index);
        if (latent)
            layer.latent = std::make_unique<LatentCopies>(device, *latent_specs_, passes, take);
        if (experts)
            layer.experts = std::make_unique<ExpertCopies>(device, *expert_specs_, passes, take);
        if (!latent) layer.qkv = packed(qkv, contractions_.hidden);
        layer.o = packed(hidden, contractions_.attention);
        if (!experts) layer.gate_up = packed(2 * intermediate, contractions_.hidden);
        if (!experts) layer.down = packed(hidden, contractions_.intermediate);
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
                .down = layer.down.view(),
                .latent = latent ? &layer.latent->view() : nullptr,
                .experts = experts ? &layer.experts->view() : nullptr};
        if (config.qkv_bias) {
            layer.qkv_bias = kernels::DeviceBuffer<float>(device, qkv);
            view.qkv_bias = layer.qkv_bias.span();
        }
        if (config.mlp_bias) {
            layer.gate_up_bias = kernels::DeviceBuffer<float>(device, 2 * intermediate);
            view.gate_up_bias = layer.gate_up_bias.span();
        }
        if (passes == Passes::forward_and_backward) {
            if (!latent) layer.qkv_back = packed(hidden, contractions_.qkv_rows);
            layer.o_back = packed(part_.attention_size(), contractions_.hidden);
            if (!experts) layer.gate_up_back = packed(hidden, contractions_.gate_up_rows);
            if (!experts) layer.down_back = packed(intermediate, contractions_.hidden);
            view.qkv_back = layer.qkv_back.view();
            view.o_back = layer.o_back.view();
            view.gate_up_back = layer.gate_up_back.view();
            view.down_back = layer.down_back.view();
        }
    }
    if (pipeline_part_.has_head) head_ = packed(part_.vocabulary.size(), contractions_.hidden);

    const RopeTable rope = rope_table(config.rope, config.rope_dim(), config.max_position);
    const std::unique_ptr<kernels::Stream> stream = device.make_stream();
    cosine_ = kernels::DeviceBuffer<float>(device, narrow<std::int64_t>(rope.cosine.size()));
    sine_ = kernels::DeviceBuffer<float>(device, narrow<std::int64_t>(rope.sine.size()));
    device.upload(std::span<const float>(rope.cosine), cosine_.span(), *stream);
    device.upload(std::span<const float>(rope.sine), sine_.span(), *stream);
}

DeviceSpan<float> Weights::master_span(ParameterId id) {
    return masters_.span().subspan(offsets_[index(id)], shape(id).size());
}

Matrix Weights::master(ParameterId id) {
    const Shape part = shape(id);
    return {master_span(id), part.rows, part.cols};
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
    std::vector<ConstMatrix> piece(1);
    const ParameterRows rows = [&](ParameterId id) {
        piece[0] = self.master(id);
        return std::span<const ConstMatrix>(piece);
    };
    const bool backward = passes_ == Passes::forward_and_backward;
    for (std::int64_t index = 0; index < config_.layers; ++index) {
        if (!pipeline_part_.holds_layer(index)) continue;
        const LayerIds& ids = parameters_.layers[static_cast<std::size_t>(index)];
        Layer& layer = layers_[static_cast<std::size_t>(pipeline_part_.local_layer(index))];
        const std::array o{self.master(ids.o)};
        layer.o.pack(compute, PackSide::outputs, o);
        if (backward) layer.o_back.pack(compute, PackSide::inputs, o);
        if (layer.latent) {
            layer.latent->pack_forward(compute, ids, rows);
            if (backward) layer.latent->pack_backward(compute, ids, rows);
        } else {
            const std::array qkv{self.master(ids.q), self.master(ids.k), self.master(ids.v)};
            layer.qkv.pack(compute, PackSide::outputs, qkv);
            if (backward) layer.qkv_back.pack(compute, PackSide::inputs, qkv);
        }
        if (layer.experts) {
            layer.experts->pack_forward(compute, ids, rows);
            if (backward) layer.experts->pack_backward(compute, ids, rows);
        } else if (!part_.intermediate.empty()) {
            const std::array gate_up{self.master(ids.gate), self.master(ids.up)};
            const std::array down{self.master(ids.down)};
            layer.gate_up.pack(compute, PackSide::outputs, gate_up);
            layer.down.pack(compute, PackSide::outputs, down);
            if (backward) layer.gate_up_back.pack(compute, PackSide::inputs, gate_up);
            if (backward) layer.down_back.pack(compute, PackSide::inputs, down);
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
    if (pipeline_part_.has_head && !part_.vocabulary.empty())
        head_.pack(compute, PackSide::outputs, head);
}

void Weights::copy_from(const Weights& other, Compute& compute) {
    ensure(config_ == other.config_ && boxes_ == other.boxes_,
           "weights of another model were to be copied");
    compute.device.copy(cast_span<const std::byte>(DeviceSpan<const float>(other.masters_.span())),
                        cast_span<std::byte>(masters_.span()), compute.stream);
    pack(compute);
}

std::vector<UInt128> Weights::digests(Compute& compute) const {
    std::vector<UInt128> all;
    for (ParameterId id = 0; id < table().count(); ++id) {
        const Box& at = box(id);
        if (!counts(id) || at.empty()) {
            all.emplace_back();
            continue;
        }
        const std::vector<Range> pieces = digest_pieces(id);
        all.push_back(compute.device.digest({.x = master(id),
                                             .name = table()[id].name,
                                             .first_row = at.rows.begin,
                                             .first_column = at.cols.begin,
                                             .pieces = pieces},
                                            compute.stream));
    }
    for_model_axes([&](parallel::Communicator& axis) { axis.all_reduce_sum("digest", all); });
    return all;
}

UInt128 Weights::digest(Compute& compute) const {
    UInt128 sum;
    for (const UInt128& one : digests(compute)) sum += one;
    return sum;
}

std::vector<Range> Weights::digest_pieces(ParameterId id) const {
    const Parameter& parameter = table()[id];
    const Range columns = box(id).cols;
    const bool columns_split = parameter.split == TensorSplit::columns ||
                               (parameter.split == TensorSplit::rows && parameter.shape.vector);
    if (!columns_split) return {{0, columns.size()}};
    const int parts =
        parameter.leaf_parts > 0 ? narrow<int>(parameter.leaf_parts) : config_.tree().leaves();
    std::vector<Range> pieces;
    for (const Range range : leaf_ranges(parameter.shape.cols, parts, parameter.leaf_unit)) {
        const Range piece = intersect(range, columns);
        if (!piece.empty())
            pieces.push_back({piece.begin - columns.begin, piece.end - columns.begin});
    }
    return pieces;
}

}  // namespace rankwise::model
