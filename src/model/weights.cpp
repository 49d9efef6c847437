#include "src/model/weights.hpp"

#include <array>

#include "src/model/rope_table.hpp"
#include "src/sums/messages.hpp"

namespace rankwise::model {

using kernels::ConstMatrix;
using kernels::Matrix;
using kernels::PackSide;

namespace {

TensorPlace place_of(const ModelAxes& axes) {
    TensorPlace place;
    if (axes.tensor != nullptr) place = {axes.tensor->size(), axes.tensor->rank()};
    if (axes.experts.axis == nullptr) return place;
    place.experts = axes.experts.axis->size();
    place.expert_rank = axes.experts.axis->rank();
    return place;
}

PipelinePlace place_of(const PipelineAxis& pipeline) {
    if (pipeline.axis == nullptr) return {};
    return {pipeline.axis->size(), pipeline.axis->rank(), pipeline.virtual_stages,
            pipeline.with_modules};
}

TensorSums sums_of(const ModelConfig& config, const Part& mine) {
    const int degree = mine.place.degree;
    TensorSums out;
    out.attention = sums::RankTree::all(config.tree(), degree);
    out.intermediate = out.shared = out.vocabulary = out.k_norm = out.attention;
    for (int rank = 0; rank < degree; ++rank) {
        const auto at = static_cast<std::size_t>(rank);
        const Part part = part_of(config, {degree, rank});
        out.intermediate.present[at] = !part.intermediate.empty();
        out.shared.present[at] = !part.shared.empty();
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

Weights::Weights(kernels::Device& device, const ModelConfig& config, Passes passes,
                 const ModelAxes& axes, Residence residence)
    : config_(config),
      passes_(passes),
      axes_(axes),
      part_(part_of(config, place_of(axes))),
      pipeline_part_(model::pipeline_part(config, place_of(axes.pipeline))),
      parameters_(decoder_parameters(config)),
      held_(held_parts(config, parameters_, part_.place, pipeline_part_)),
      tensor_sums_(sums_of(config, part_)),
      vocabulary_(config, part_.place.degree),
      contractions_(layer_contractions(config, part_)),
      device_(&device) {
    frozen_ = parameters_.frozen(false);
    place_masters();
    specs_ = std::make_unique<LayerSpecs>(config, part_, contractions_);
    head_spec_ = std::make_unique<kernels::PackSpec>(
        kernels::PackSpec{config.dtype, part_.vocabulary.size(), contractions_.hidden});
    if (residence.where == Residency::device) {
        // In one piece: the device lays large pieces on large pages, and what is read as a stream
        // is brought ahead within a page alone.
        const std::int64_t room = bytes_taken([&](const Take& take) { make_room(take); });
        leave();
        memory_ = kernels::DeviceBuffer<std::byte>(device, room);
        make_room(pieces_of(memory_.span()));
        if (sharded()) gathered_ = make_gathered();
    } else {
        off_ = std::make_unique<OffDevice>(std::move(residence));
    }

    const RopeTable rope = rope_table(config.rope, config.rope_dim(), config.max_position);
    const std::unique_ptr<kernels::Stream> stream = device.make_stream();
    cosine_ = kernels::DeviceBuffer<float>(device, narrow<std::int64_t>(rope.cosine.size()));
    sine_ = kernels::DeviceBuffer<float>(device, narrow<std::int64_t>(rope.sine.size()));
    device.upload(std::span<const float>(rope.cosine), cosine_.span(), *stream);
    device.upload(std::span<const float>(rope.sine), sine_.span(), *stream);
}

/// Where masters lie: aligned to 64 bytes if this rank has all rows, else as in its shard, so that
/// a layer's are sent as one piece.
void Weights::place_masters() {
    boxes_ = held_.boxes;
    if (axes_.shards == nullptr) {
        constexpr std::int64_t kAlign = 16;  // floats in 64 bytes
        for (ParameterId id = 0; id < table().count(); ++id) {
            if (!data_ranks()[index(id)].contains(axes_.experts.data_rank))
                boxes_[index(id)].rows = {};
            offsets_.push_back(size_);
            size_ += round_up(box(id).size(), kAlign);
        }
    } else {
        owners_ = std::make_unique<parallel::ShardMap>(shapes(), axes_.shards->size(),
                                                       std::vector<bool>(), data_ranks());
        for (ParameterId id = 0; id < table().count(); ++id) {
            Range& rows = boxes_[index(id)].rows;
            const auto piece = owners_->piece(axes_.shards->rank(), id);
            const Range held = piece ? piece->rows : Range{};
            rows = {rows.begin + held.begin, rows.begin + held.end};
            offsets_.push_back(size_);
            size_ += piece ? piece->size : 0;
        }
    }
}

void Weights::make_room(const Take& take) {
    masters_ = cast_span<float>(take(bytes()));
    if (sharded()) return;
    for (std::int64_t l = 0; l < config_.layers; ++l) {
        if (pipeline_part_.holds_layer(l))
            layers_.emplace_back(*device_, *specs_, config_.has_experts(l), passes_, take);
    }
    if (pipeline_part_.has_head) head_ = PackedCopy(*device_, *head_spec_, take);
}

std::unique_ptr<Gathered> Weights::make_gathered() const {
    return std::make_unique<Gathered>(*device_, parameters_, pipeline_part_, *owners_, data_ranks(),
                                      shapes(), *specs_, *head_spec_, passes_, *axes_.shards,
                                      masters_, uses_mtp_);
}

void Weights::use_mtp(Compute& compute, bool on) {
    if (on == uses_mtp_) return;
    ensure(!off_ && !parameters_.mtp.empty(), "a model without a module that predicts further");
    frozen_ = parameters_.frozen(on);
    uses_mtp_ = on;
    if (!on) {
        if (sharded()) gathered_->drop_mtp();
        mtp_.reset();
        mtp_memory_.clear();
    } else if (sharded()) {
        gathered_.reset();  // before the next takes its memory
        gathered_ = make_gathered();
    } else if (pipeline_part_.has_head) {
        mtp_ = std::make_unique<MtpCopies>(
            *device_, *specs_, config_.hidden, config_.has_experts(mtp_layer()),
            [&](std::int64_t bytes) { return mtp_memory_.emplace_back(*device_, bytes).span(); });
        pack_mtp(compute);
    }
}

void Weights::renew_mtp_copies(Compute& compute) {
    compute.will_change();
    const MtpIds& module = mtp_ids();
    const auto copy = [&](ConstMatrix whole, ParameterId to) {
        if (box(to).empty()) return;
        compute.copy(whole.row_range(held_rows(to)), master(to));
    };
    const PipelinePart& part = pipeline_part_;
    if (part.has_embedding) {
        gather_embedding(compute);
        copy(embedding(), module.embedding_copy);
        if (part.split() && !part.has_head)
            sums::start_send(compute.tools(), pipeline(), "weights:copy", embedding(),
                             part.last_rank(), kLookupChannel)
                .wait();
    } else if (part.has_head) {
        const kernels::Arena::Scope scope(compute.arena);
        const Matrix whole = compute.matrix(shape(module.embedding_copy).rows, config_.hidden);
        sums::receive(compute.tools(), pipeline(), "weights:copy", whole, 0, kLookupChannel);
        copy(whole, module.embedding_copy);
    }
    if (pipeline_part_.has_head) {
        gather_head(compute, Copies::backward);
        copy(head(), module.head_copy);
    }
}

void Weights::bring(Compute& compute) {
    make_room([&](std::int64_t bytes) { return compute.arena.take<std::byte>(bytes); });
    if (sharded()) gathered_ = make_gathered();
    const std::vector<float> values = off_->get();
    if (values.empty()) return;  // nothing was written yet
    compute.device.Memory::upload<float>(std::span<const float>(values), masters_, compute.stream);
    pack_layers(compute);
    pack_others(compute);
}

void Weights::leave() {
    gathered_.reset();
    layers_.clear();
    head_ = {};
    masters_ = {};
}

OnDevice::OnDevice(Compute& compute, Weights& weights) : weights_(weights) {
    if (!weights.off_) return;
    scope_.emplace(compute.arena);
    weights.bring(compute);
}

OnDevice::~OnDevice() {
    if (scope_) weights_.leave();
}

DeviceSpan<float> Weights::master_span(ParameterId id) {
    return masters_.subspan(offsets_[index(id)], box(id).size());
}

Matrix Weights::master(ParameterId id) {
    return {master_span(id), box(id).rows.size(), box(id).cols.size()};
}

ConstMatrix Weights::master(ParameterId id) const {
    return const_cast<Weights*>(this)->master(id);
}

DeviceSpan<const float> Weights::final_norm() const {
    if (sharded()) return gathered_->final_norm();
    return const_cast<Weights*>(this)->master_span(parameters_.final_norm);
}

void Weights::pack(Compute& compute) {
    pack_layers(compute);
    pack_rest(compute);
}

void Weights::pack_layers(Compute& compute) {
    for (std::int64_t l = 0; l < config_.layers; ++l) pack_layer(compute, l);
}

void Weights::pack_layer(Compute& compute, std::int64_t layer) {
    if (sharded() || !pipeline_part_.holds_layer(layer)) return;
    ConstMatrix rows;
    const ParameterRows whole = whole_rows(rows);
    const LayerIds& ids = parameters_.layers[static_cast<std::size_t>(layer)];
    PackedLayer& packed = layers_[static_cast<std::size_t>(pipeline_part_.local_layer(layer))];
    packed.pack_forward(compute, ids, whole);
    if (passes_ == Passes::forward_and_backward) packed.pack_backward(compute, ids, whole);
}

void Weights::pack_rest(Compute& compute) {
    if (off_ && off_->keeps())
        off_->put(compute.device.Memory::download<float>(DeviceSpan<const float>(masters_),
                                                         compute.stream));
    pack_others(compute);
}

void Weights::pack_others(Compute& compute) {
    if (sharded()) {
        gathered_->invalidate();
        return;
    }
    if (mtp_) pack_mtp(compute);
    if (!pipeline_part_.has_head) return;
    const std::array head{std::as_const(*this).head()};
    if (!part_.vocabulary.empty()) head_.pack(compute, PackSide::outputs, head);
}

/// `held` is what each answer lies in.
ParameterRows Weights::whole_rows(ConstMatrix& held) const {
    return [this, &held](ParameterId id) {
        held = master(id);
        return std::span<const ConstMatrix>(&held, 1);
    };
}

void Weights::pack_mtp(Compute& compute) {
    ConstMatrix rows;
    const ParameterRows whole = whole_rows(rows);
    mtp_->pack_forward(compute, mtp_ids(), whole);
    mtp_->pack_backward(compute, mtp_ids(), whole);
}

void Weights::copy_from(const Weights& other, Compute& compute) {
    ensure(config_ == other.config_ && boxes_ == other.boxes_,
           "weights of another model were to be copied");
    compute.will_change();
    compute.device.copy(cast_span<const std::byte>(DeviceSpan<const float>(other.masters_)),
                        cast_span<std::byte>(masters_), compute.stream);
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
    if (sharded()) shards().all_reduce_sum("digest", all);
    if (!sharded() && expert_data_ranks() > 1) {
        // Experts of this tensor rank that other data ranks of the axis hold: the axis has the
        // tensor ranks too, which must not be counted again.
        std::vector<UInt128> routed(all.size());
        for (ParameterId id = 0; id < table().count(); ++id) {
            if (table()[id].expert < 0) continue;
            std::swap(routed[index(id)], all[index(id)]);
        }
        experts().axis->all_reduce_sum("digest", routed);
        if (split()) tensor().all_reduce_sum("digest", all);
        for (std::size_t id = 0; id < all.size(); ++id) all[id] += routed[id];
        if (pipeline_part_.split()) pipeline().all_reduce_sum("digest", all);
        return all;
    }
    for_model_axes([&](parallel::Communicator& axis) { axis.all_reduce_sum("digest", all); });
    return all;
}

std::vector<bool> Weights::without_moments() const {
    std::vector<bool> without = frozen_;
    for (ParameterId id = 0; id < table().count(); ++id) {
        if (!data_ranks()[index(id)].contains(axes_.experts.data_rank)) without[index(id)] = true;
    }
    return without;
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
