#include "src/model/gathered.hpp"

#include <algorithm>

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;

/// Parameters of a layer, which are consecutive in the table.
Range ids_of_layer(const ParameterTable& table, std::int64_t layer) {
    Range ids{table.count(), 0};
    for (ParameterId id = 0; id < table.count(); ++id) {
        if (table[id].layer != layer) continue;
        ids.begin = std::min<std::int64_t>(ids.begin, id);
        ids.end = id + 1;
    }
    return ids;
}

std::int64_t size_of(std::span<const Shape> shapes, ParameterId id) {
    return shapes[static_cast<std::size_t>(id)].size();
}

}  // namespace

Gathered::Group::Group(const parallel::ShardMap& owners,
                       std::span<const parallel::DataRanks> data_ranks, Range parameters, int rank)
    : ids(parameters) {
    sent.assign(static_cast<std::size_t>(owners.ranks()), 0);
    for (int r = 0; r < owners.ranks(); ++r) {
        std::int64_t& count = counts.emplace_back(0);
        for (std::int64_t id = ids.begin; id < ids.end; ++id) {
            const parallel::DataRanks& readers = data_ranks[static_cast<std::size_t>(id)];
            if (const auto own_piece = owners.piece(rank, narrow<ParameterId>(id))) {
                if (readers.contains(r)) sent[static_cast<std::size_t>(r)] += own_piece->size;
            }
            const auto piece = owners.piece(r, narrow<ParameterId>(id));
            if (!piece || !readers.contains(rank)) continue;
            if (r == rank && count == 0) own = {piece->offset, piece->offset};
            count += piece->size;
        }
        if (r == rank) own.end = own.begin + count;
        size += count;
    }
    const auto of_group = data_ranks.subspan(static_cast<std::size_t>(ids.begin),
                                             static_cast<std::size_t>(ids.size()));
    if (std::ranges::all_of(of_group, [](const auto& readers) { return readers.stride == 1; }))
        sent.clear();
}

Gathered::Gathered(kernels::Device& device, const DecoderParameters& parameters,
                   const PipelinePart& part, const parallel::ShardMap& owners,
                   std::span<const parallel::DataRanks> data_ranks, std::span<const Shape> shapes,
                   const LayerSpecs& specs, const kernels::PackSpec& head, Passes passes,
                   parallel::Communicator& data, DeviceSpan<const float> masters, bool mtp)
    : device_(device),
      parameters_(parameters),
      part_(part),
      owners_(owners),
      data_ranks_(data_ranks),
      shapes_(shapes),
      specs_(specs),
      data_(data),
      masters_(masters),
      table_(device,
             std::max(size_of(shapes, parameters.embedding), size_of(shapes, parameters.head))),
      final_norm_(device, size_of(shapes, parameters.final_norm)) {
    if (part.has_head) head_ = PackedCopy(device, head, take_from_device(head_memory_));
    std::int64_t largest = 0, most_sent = 0;
    const auto add_layer = [&](std::int64_t layer) {
        const Group& group = layers_.emplace_back(
            owners, data_ranks, ids_of_layer(parameters.table, layer), data.rank());
        largest = std::max(largest, group.size);
        most_sent = std::max(most_sent, sums::total_of(group.sent));
    };
    std::array<std::int64_t, 2> copies{};  // bytes of a dense layer's, and of one with experts
    for (std::int64_t l = 0; l < std::ssize(parameters.layers); ++l) {
        add_layer(l);
        std::int64_t& bytes = copies[has_experts(l) ? 1 : 0];
        if (bytes == 0 && part.holds_layer(l)) bytes = packed_bytes(has_experts(l), passes);
    }
    if (mtp && part.has_head) {
        const std::int64_t module = std::ssize(parameters.layers);
        add_layer(module);
        mtp_ = std::make_unique<MtpCopies>(device, specs, shapes[0].cols, has_experts(module),
                                           take_from_device(mtp_memory_));
    }
    for (Slot& slot : slots_) {
        slot.sent = kernels::DeviceBuffer<float>(device, most_sent);
        slot.rows = kernels::DeviceBuffer<float>(device, largest);
        slot.memory =
            kernels::DeviceBuffer<std::byte>(device, std::max(copies.front(), copies.back()));
        for (const bool experts : {false, true}) {
            if (copies[experts ? 1 : 0] == 0) continue;
            slot.packed[experts ? 1 : 0] = std::make_unique<PackedLayer>(
                device, specs, experts, passes, pieces_of(slot.memory.span()));
        }
    }
}

Gathered::~Gathered() = default;

std::int64_t Gathered::packed_bytes(bool experts, Passes passes) const {
    return bytes_taken([&](const Take& take) {
        const PackedLayer counted(device_, specs_, experts, passes, take);
    });
}

Take Gathered::take_from_device(std::vector<kernels::DeviceBuffer<std::byte>>& memory) {
    return
        [this, &memory](std::int64_t bytes) { return memory.emplace_back(device_, bytes).span(); };
}

void Gathered::invalidate() {
    ensure(!holds_all(), "weights were changed while generation holds copies of them");
    for (Slot& slot : slots_) {
        slot.arrival.wait();
        slot.layer = -1;
    }
    table_id_ = -1;
    final_norm_there_ = false;
    head_packed_ = false;
}

void Gathered::drop_mtp() {
    for (Slot& slot : slots_) {
        if (is_module(slot.layer)) slot.layer = -1;
    }
    layers_.erase(layers_.begin() + std::ssize(parameters_.layers), layers_.end());
    mtp_.reset();
    mtp_memory_.clear();
}

Gathered::Slot* Gathered::find(std::int64_t layer) {
    const auto found =
        std::ranges::find_if(slots_, [&](const Slot& slot) { return slot.layer == layer; });
    return found == slots_.end() ? nullptr : &*found;
}

Gathered::Slot& Gathered::start(Compute& compute, std::int64_t layer) {
    if (Slot* const there = find(layer)) return *there;
    Slot& slot = *std::ranges::min_element(slots_, {}, &Slot::used);
    slot.arrival.wait();
    const Group& group = layers_[static_cast<std::size_t>(layer)];
    slot.layer = layer;
    slot.forward = slot.backward = false;
    const DeviceSpan<float> rows = slot.rows.span().subspan(0, group.size);
    slot.pieces.resize(static_cast<std::size_t>(group.ids.size()));
    for (auto& pieces : slot.pieces) pieces.clear();
    std::int64_t at = 0;
    for (int rank = 0; rank < owners_.ranks(); ++rank) {
        for (std::int64_t id = group.ids.begin; id < group.ids.end; ++id) {
            const auto piece = owners_.piece(rank, narrow<ParameterId>(id));
            if (!piece || !reads(data_.rank(), id)) continue;
            slot.pieces[static_cast<std::size_t>(id - group.ids.begin)].push_back(
                Matrix(rows.subspan(at, piece->size), piece->rows.size(),
                       shapes_[static_cast<std::size_t>(id)].cols));
            at += piece->size;
        }
    }
    const DeviceSpan<const float> own = masters_.subspan(group.own.begin, group.own.size());
    if (group.sent.empty()) {
        slot.arrival = data_.start_all_gather_v("weights:layer", sums::wire(compute.tools(), own),
                                                sums::wire(compute.tools(), rows), group.counts);
        return slot;
    }
    const DeviceSpan<float> sent = fill(compute, slot, group);
    slot.arrival =
        data_.start_all_to_all_v("weights:layer", sums::wire(compute.tools(), sent), group.sent,
                                 sums::wire(compute.tools(), rows), group.counts);
    return slot;
}

/// For each rank what it reads of this rank's rows.
DeviceSpan<float> Gathered::fill(Compute& compute, Slot& slot, const Group& group) {
    const DeviceSpan<float> sent = slot.sent.span().subspan(0, sums::total_of(group.sent));
    std::vector<parallel::ShardPiece> pieces;
    for (std::int64_t id = group.ids.begin; id < group.ids.end; ++id) {
        if (const auto piece = owners_.piece(data_.rank(), narrow<ParameterId>(id)))
            pieces.push_back(*piece);
    }
    std::int64_t at = 0;
    for (int rank = 0; rank < owners_.ranks(); ++rank) {
        // Rows that lie one after the other go with one copy.
        Range run;
        const auto copy = [&] {
            if (run.empty()) return;
            compute.device.copy(cast_span<const std::byte>(masters_.subspan(run.begin, run.size())),
                                cast_span<std::byte>(sent.subspan(at, run.size())), compute.stream);
            at += run.size();
        };
        for (const parallel::ShardPiece& piece : pieces) {
            if (!reads(rank, piece.parameter)) continue;
            if (piece.offset != run.end) {
                copy();
                run = {piece.offset, piece.offset};
            }
            run.end += piece.size;
        }
        copy();
    }
    return sent;
}

ParameterRows Gathered::rows_of(const Slot& slot) const {
    const std::int64_t first = layers_[static_cast<std::size_t>(slot.layer)].ids.begin;
    return [&slot, first](ParameterId id) {
        return std::span<const ConstMatrix>(slot.pieces[static_cast<std::size_t>(id - first)]);
    };
}

Gathered::Slot& Gathered::arrived(Compute& compute, std::int64_t layer) {
    Slot& slot = start(compute, layer);
    slot.used = ++clock_;
    slot.arrival.wait();
    return slot;
}

void Gathered::layer(Compute& compute, std::int64_t layer, Copies copies,
                     std::optional<std::int64_t> next) {
    if (holds_all()) return;
    Slot& slot = arrived(compute, layer);
    if (next) start(compute, *next);
    bool& made = copies == Copies::forward ? slot.forward : slot.backward;
    if (made) return;
    const auto pack = [&](auto& packed_copies, const auto& ids) {
        if (copies == Copies::forward) {
            packed_copies.pack_forward(compute, ids, rows_of(slot));
        } else {
            packed_copies.pack_backward(compute, ids, rows_of(slot));
        }
    };
    if (is_module(layer)) {
        pack(*mtp_, parameters_.mtp.front());
    } else {
        pack(packed(slot), parameters_.layer(layer));
    }
    made = true;
}

const LayerWeights& Gathered::view(std::int64_t layer) const {
    if (holds_all()) return resident_[static_cast<std::size_t>(part_.local_layer(layer))].view();
    Slot* const slot = const_cast<Gathered*>(this)->find(layer);
    ensure(slot != nullptr && (slot->forward || slot->backward), "layer {} was not gathered",
           layer);
    return is_module(layer) ? mtp_->layer() : packed(*slot).view();
}

void Gathered::gather(Compute& compute, ParameterId id, DeviceSpan<float> to) {
    // Rows ascend with the ranks: what arrives is the parameter.
    const Group group(owners_, data_ranks_, {id, id + 1}, data_.rank());
    data_.all_gather_v(
        "weights:table",
        sums::wire(compute.tools(), masters_.subspan(group.own.begin, group.own.size())),
        sums::wire(compute.tools(), to), group.counts);
}

void Gathered::embedding(Compute& compute, ParameterId id) {
    if (table_id_ == id) return;
    gather(compute, id, table_.span().subspan(0, size_of(shapes_, id)));
    table_id_ = id;
}

void Gathered::head(Compute& compute, Copies copies) {
    if (!final_norm_there_) gather(compute, parameters_.final_norm, final_norm_.span());
    final_norm_there_ = true;
    if (copies == Copies::forward && head_packed_) return;
    const ParameterId id = parameters_.head;
    if (table_id_ != id) gather(compute, id, table_.span().subspan(0, size_of(shapes_, id)));
    table_id_ = id;
    if (head_packed_) return;
    const std::array rows{table(id)};
    if (rows[0].rows > 0) head_.pack(compute, kernels::PackSide::outputs, rows);
    head_packed_ = true;
}

ConstMatrix Gathered::table(ParameterId id) const {
    ensure(table_id_ == id, "parameter {} was not gathered", id);
    const Shape shape = shapes_[static_cast<std::size_t>(id)];
    return Matrix(table_.span().subspan(0, shape.size()), shape.rows, shape.cols);
}

void Gathered::hold_all(Compute& compute) {
    std::vector<PackedLayer> all;
    const Take take = [&](std::int64_t bytes) { return compute.arena.take<std::byte>(bytes); };
    const auto layers = std::ssize(parameters_.layers);
    for (std::int64_t l = 0; l < layers; ++l) {
        if (!part_.holds_layer(l)) continue;
        Slot& slot = arrived(compute, l);
        if (l + 1 < layers && part_.holds_layer(l + 1)) start(compute, l + 1);
        // Vectors are read where they are, and a slot is soon another layer's.
        std::vector<std::vector<ConstMatrix>> pieces = slot.pieces;
        const std::int64_t first = layers_[static_cast<std::size_t>(l)].ids.begin;
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            if (!shapes_[static_cast<std::size_t>(first) + i].vector) continue;
            for (ConstMatrix& vector : pieces[i]) {
                const Matrix copy = compute.matrix(vector.rows, vector.cols);
                compute.copy(vector, copy);
                vector = copy;
            }
        }
        all.emplace_back(device_, specs_, has_experts(l), Passes::forward, take)
            .pack_forward(compute, parameters_.layers[static_cast<std::size_t>(l)],
                          [&](ParameterId id) {
                              return std::span<const ConstMatrix>(
                                  pieces[static_cast<std::size_t>(id - first)]);
                          });
        compute.device.synchronize(compute.stream);  // before the slot is filled again
    }
    if (part_.has_head) head(compute, Copies::forward);
    if (part_.has_embedding) embedding(compute, parameters_.embedding);
    resident_ = std::move(all);
}

}  // namespace rankwise::model
