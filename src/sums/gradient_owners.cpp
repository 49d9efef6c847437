#include "src/sums/gradient_owners.hpp"

#include <algorithm>

#include "parallel/index.hpp"

namespace rankwise::sums {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using parallel::ShardPiece;

/// Elements of `rank` in a group of parameters.
std::int64_t group_size(const parallel::ShardMap& owners, int rank,
                        std::span<const ParameterId> group) {
    std::int64_t size = 0;
    for (const ParameterId id : group) {
        if (const auto piece = owners.piece(rank, id)) size += piece->size;
    }
    return size;
}

/// Floats a rank from which on a parameter is gathered by itself, where it lies: its bytes then
/// take longer than one more message, and copying them to and fro is saved.
constexpr std::int64_t kFloatsOfItsOwn = std::int64_t{64} * 1024;

GradientOwners::ServedLookup own_chunk(const GradientOwners::Lookup& own) {
    return [&own](ParameterId id, int /*chunk*/) { return own(id); };
}

}  // namespace

GradientOwners::GradientOwners(Tools tools, parallel::Communicator& data,
                               std::span<const Shape> shapes, const parallel::ShardMap& owners)
    : tools_(tools),
      data_(data),
      shapes_(shapes.begin(), shapes.end()),
      owners_(owners),
      totals_(tools.device, owners.size(data.rank())) {
    ensure(owners.ranks() == data.size(), "owners for {} ranks on an axis of {}", owners.ranks(),
           data.size());
}

Matrix GradientOwners::total(const ShardPiece& piece) const {
    return {totals_.span().subspan(piece.offset, piece.size), piece.rows.size(),
            shapes_[static_cast<std::size_t>(piece.parameter)].cols};
}

Matrix GradientOwners::whole(ParameterId id) const {
    ensure(data_.size() == 1, "a total is whole on one data rank only");
    const auto piece = owners_.piece(0, id);
    return piece ? total(*piece) : Matrix();
}

void GradientOwners::reset() {
    tools_.device.zero(cast_span<std::byte>(totals_.span()), tools_.stream);
    for (RowSums& sums : row_sums_) sums.clear();
}

void GradientOwners::RowSums::clear() {
    slots.clear();
    ids.clear();
}

GradientOwners::Flight GradientOwners::send(std::string_view label,
                                            std::span<const ParameterId> parameters,
                                            const std::vector<bool>& contributes, int served,
                                            const ServedLookup& own, const Take& take) {
    const int ranks = data_.size();
    const int self = data_.rank();
    const std::int64_t mine = group_size(owners_, self, parameters);
    // Chunks whose gradients a rank has, among those of the ranks that it serves.
    const auto chunks_of = [&](int rank) {
        std::vector<int> chunks;
        const auto first = parallel::index(std::int64_t{rank} - rank % served);
        for (int chunk = 0; chunk < served; ++chunk) {
            if (contributes[first + parallel::index(chunk)]) chunks.push_back(chunk);
        }
        return chunks;
    };
    const std::vector<int> own_chunks = chunks_of(self);
    // To and from others: a rank's own rows do not travel.
    std::vector<std::int64_t> send_counts(static_cast<std::size_t>(ranks), 0);
    std::vector<std::int64_t> receive_counts(static_cast<std::size_t>(ranks), 0);
    // Ranks that are as far from the first that they serve hold the same parameters.
    for (int rank = self % served; rank < ranks; rank += served) {
        if (rank == self) continue;
        const auto at = static_cast<std::size_t>(rank);
        send_counts[at] = std::ssize(own_chunks) * group_size(owners_, rank, parameters);
        receive_counts[at] = std::ssize(chunks_of(rank)) * mine;
    }
    const std::int64_t incoming = total_of(receive_counts);
    const std::int64_t kept = std::ssize(own_chunks) * mine;
    const DeviceSpan<float> sent = take(sent_, total_of(send_counts));
    const DeviceSpan<float> all = take(received_, incoming + kept);
    const DeviceSpan<float> received = all.subspan(0, incoming);
    const DeviceSpan<float> own_rows = all.subspan(incoming, kept);
    const auto copy_rows_of = [&](int rank, DeviceSpan<float> to) {
        std::int64_t at = 0;
        for (const int chunk : own_chunks) {
            for (const ParameterId id : parameters) {
                const auto piece = owners_.piece(rank, id);
                if (!piece) continue;
                tools_.device.copy(bytes_of(own(id, chunk).row_range(piece->rows)),
                                   cast_span<std::byte>(to.subspan(at, piece->size)),
                                   tools_.stream);
                at += piece->size;
            }
        }
    };
    Flight flight{.parameters = {parameters.begin(), parameters.end()}};
    std::int64_t sent_at = 0;
    std::int64_t received_at = 0;
    for (int rank = self % served; rank < ranks; rank += served) {
        const std::int64_t to = send_counts[static_cast<std::size_t>(rank)];
        const std::int64_t from = receive_counts[static_cast<std::size_t>(rank)];
        copy_rows_of(rank, rank == self ? own_rows : sent.subspan(sent_at, to));
        const DeviceSpan<float> chunks =
            rank == self ? own_rows : received.subspan(received_at, from);
        for (std::int64_t at = 0; at < chunks.size(); at += mine)
            flight.chunks.emplace_back(chunks.subspan(at, mine));
        sent_at += to;
        received_at += from;
    }
    flight.arrival = data_.start_all_to_all_v(label, wire(tools_, sent), send_counts,
                                              wire(tools_, received), receive_counts);
    return flight;
}

void GradientOwners::add(Flight& flight) {
    flight.arrival.wait();
    // Ascending ranks of a wave are ascending chunks, and so are those that a rank serves.
    if (break_order_) std::ranges::reverse(flight.chunks);
    std::vector<DeviceSpan<const float>> from(flight.chunks.size());
    std::int64_t at = 0;
    for (const ParameterId id : flight.parameters) {
        const auto piece = owners_.piece(data_.rank(), id);
        if (!piece) continue;
        std::ranges::transform(flight.chunks, from.begin(), [&](DeviceSpan<const float> chunk) {
            return chunk.subspan(at, piece->size);
        });
        tools_.device.add_in_order(
            {.from = from, .to = totals_.span().subspan(piece->offset, piece->size)},
            tools_.stream);
        at += piece->size;
    }
}

GradientOwners::Take GradientOwners::take_scratch() const {
    return [this](kernels::DeviceBuffer<float>&, std::int64_t size) {
        return tools_.arena.take<float>(size);
    };
}

void GradientOwners::exchange(std::string_view label, std::span<const ParameterId> parameters,
                              const std::vector<bool>& contributes, const Lookup& own) {
    finish_exchange();
    const kernels::Arena::Scope scope(tools_.arena);
    Flight flight = send(label, parameters, contributes, 1, own_chunk(own), take_scratch());
    add(flight);
}

void GradientOwners::exchange_served(std::string_view label,
                                     std::span<const ParameterId> parameters,
                                     const std::vector<bool>& contributes, int served,
                                     const ServedLookup& own) {
    finish_exchange();
    const kernels::Arena::Scope scope(tools_.arena);
    std::vector<ParameterId> held;
    for (const ParameterId id : parameters) {
        const auto pieces = owners_.owners(id);
        if (!pieces.empty() && pieces.front().rank % served == data_.rank() % served)
            held.push_back(id);
    }
    Flight flight = send(label, held, contributes, served, own, take_scratch());
    add(flight);
}

void GradientOwners::start_exchange(std::string_view label, std::span<const ParameterId> parameters,
                                    const std::vector<bool>& contributes, const Lookup& own) {
    finish_exchange();
    flight_ = send(label, parameters, contributes, 1, own_chunk(own),
                   [&](kernels::DeviceBuffer<float>& buffer, std::int64_t size) {
                       if (buffer.size() < size) {
                           tools_.device.synchronize(tools_.stream);
                           buffer = {};
                           buffer = kernels::DeviceBuffer<float>(tools_.device, size);
                       }
                       return buffer.span().subspan(0, size);
                   });
}

void GradientOwners::finish_exchange() {
    if (!flight_) return;
    add(*flight_);
    flight_.reset();
}

void GradientOwners::add_row(RowSums& sums, ParameterId parameter, TokenId id, ConstMatrix row) {
    const std::int64_t cols = shapes_[static_cast<std::size_t>(parameter)].cols;
    const auto [found, fresh] = sums.slots.emplace(id, static_cast<std::int64_t>(sums.ids.size()));
    const std::int64_t slot = found->second;
    if (fresh) {
        sums.ids.push_back(id);
        if (slot >= sums.capacity) {
            const std::int64_t capacity = std::max<std::int64_t>(64, 2 * sums.capacity);
            kernels::DeviceBuffer<float> larger(tools_.device, capacity * cols);
            tools_.device.copy(
                cast_span<const std::byte>(DeviceSpan<const float>(sums.rows.span())),
                cast_span<std::byte>(larger.span().subspan(0, sums.rows.size())), tools_.stream);
            tools_.device.synchronize(tools_.stream);
            sums.rows = std::move(larger);
            sums.capacity = capacity;
        }
        tools_.device.zero(cast_span<std::byte>(sums.rows.span().subspan(slot * cols, cols)),
                           tools_.stream);
    }
    tools_.device.add(
        {.from = row, .to = Matrix(sums.rows.span().subspan(slot * cols, cols), 1, cols)},
        tools_.stream);
}

void GradientOwners::exchange_rows(std::string_view label, ParameterId parameter,
                                   std::span<const TokenId> ids, ConstMatrix rows,
                                   const std::vector<bool>& contributes, RowSource source) {
    const int ranks = data_.size();
    RowSums& sums = rows_from(source);
    if (ranks == 1) {
        for (std::size_t i = 0; i < ids.size(); ++i) {
            const auto row = static_cast<std::int64_t>(i);
            add_row(sums, parameter, ids[i], rows.row_range({row, row + 1}));
        }
        return;
    }
    const kernels::Arena::Scope scope(tools_.arena);
    const std::int64_t cols = shapes_[static_cast<std::size_t>(parameter)].cols;
    // Send ids and rows grouped by owner; an owner's rows are one range of ids.
    std::vector<std::int64_t> send_ids(static_cast<std::size_t>(ranks), 0);
    std::vector<TokenId> ordered;
    const bool contributing = contributes[static_cast<std::size_t>(data_.rank())];
    const std::int64_t count = contributing ? static_cast<std::int64_t>(ids.size()) : 0;
    const DeviceSpan<float> send = tools_.arena.take<float>(count * cols);
    for (int rank = 0; contributing && rank < ranks; ++rank) {
        const auto piece = row_owners().piece(rank, parameter);
        if (!piece) continue;
        const auto first = std::lower_bound(ids.begin(), ids.end(), piece->rows.begin);
        const auto last = std::lower_bound(first, ids.end(), piece->rows.end);
        const Range range{first - ids.begin(), last - ids.begin()};
        if (range.empty()) continue;
        tools_.device.copy(
            bytes_of(rows.row_range(range)),
            cast_span<std::byte>(send.subspan(static_cast<std::int64_t>(ordered.size()) * cols,
                                              range.size() * cols)),
            tools_.stream);
        ordered.insert(ordered.end(), first, last);
        send_ids[static_cast<std::size_t>(rank)] = range.size();
    }
    std::vector<std::int64_t> receive_ids(static_cast<std::size_t>(ranks), 0);
    data_.all_to_all(label, send_ids, receive_ids);
    std::vector<TokenId> received_ids(static_cast<std::size_t>(total_of(receive_ids)));
    data_.all_to_all_v(label, ordered, send_ids, received_ids, receive_ids);
    const auto elements = [&](std::vector<std::int64_t> counts) {
        for (std::int64_t& value : counts) value *= cols;
        return counts;
    };
    const DeviceSpan<float> received =
        tools_.arena.take<float>(static_cast<std::int64_t>(received_ids.size()) * cols);
    data_.all_to_all_v(label, wire(tools_, send), elements(send_ids), wire(tools_, received),
                       elements(receive_ids));
    for (std::size_t i = 0; i < received_ids.size(); ++i) {  // ranks ascending, so chunks ascending
        const DeviceSpan<float> row = received.subspan(static_cast<std::int64_t>(i) * cols, cols);
        add_row(sums, parameter, received_ids[i], Matrix(row, 1, cols));
    }
}

void GradientOwners::add_to_totals(ParameterId parameter, std::span<const TokenId> ids,
                                   DeviceSpan<const float> rows) {
    const auto piece = owners_.piece(data_.rank(), parameter);
    const std::int64_t cols = shapes_[static_cast<std::size_t>(parameter)].cols;
    for (std::size_t slot = 0; slot < ids.size(); ++slot) {
        ensure(piece && piece->rows.contains(ids[slot]), "row {} of parameter {} is another rank's",
               ids[slot], parameter);
        const std::int64_t row = ids[slot] - piece->rows.begin;
        const DeviceSpan<const float> from =
            rows.subspan(static_cast<std::int64_t>(slot) * cols, cols);
        tools_.device.add(
            {.from = ConstMatrix(from, 1, cols), .to = total(*piece).row_range({row, row + 1})},
            tools_.stream);
    }
}

void GradientOwners::finish_rows(ParameterId parameter, RowSource source) {
    RowSums& sums = rows_from(source);
    add_to_totals(parameter, sums.ids, sums.rows.span());
    sums.clear();
}

void GradientOwners::send_rows(parallel::Communicator& pipeline, int to, ParameterId parameter,
                               RowSource source) {
    RowSums& sums = rows_from(source);
    const std::int64_t cols = shapes_[static_cast<std::size_t>(parameter)].cols;
    const std::vector<std::int64_t> count{std::ssize(sums.ids)};
    pipeline.send("gradients:embedding", count, to);
    pipeline.send("gradients:embedding", sums.ids, to);
    const DeviceSpan<const float> rows = sums.rows.span().subspan(0, count.front() * cols);
    pipeline.send("gradients:embedding", wire(tools_, rows), to);
    sums.clear();
}

void GradientOwners::receive_rows(parallel::Communicator& pipeline, int from,
                                  ParameterId parameter) {
    const kernels::Arena::Scope scope(tools_.arena);
    const std::int64_t cols = shapes_[static_cast<std::size_t>(parameter)].cols;
    std::vector<std::int64_t> count(1);
    pipeline.receive("gradients:embedding", count, from);
    std::vector<TokenId> ids(static_cast<std::size_t>(count.front()));
    pipeline.receive("gradients:embedding", ids, from);
    const DeviceSpan<float> rows = tools_.arena.take<float>(count.front() * cols);
    pipeline.receive("gradients:embedding", wire(tools_, rows), from);
    add_to_totals(parameter, ids, rows);
}

void all_gather_rows(Tools tools, parallel::Communicator& data, std::string_view label,
                     const parallel::ShardMap& owners, std::span<const ParameterId> parameters,
                     const std::function<Matrix(ParameterId)>& whole) {
    if (data.size() == 1) return;
    std::vector<ParameterId> small;
    std::vector<std::int64_t> counts(static_cast<std::size_t>(data.size()));
    for (const ParameterId id : parameters) {
        const Matrix matrix = whole(id);
        const std::int64_t elements = matrix.rows * matrix.cols;
        if (elements < kFloatsOfItsOwn * data.size()) {
            small.push_back(id);
            continue;
        }
        // Ranks own rows in ascending order, so that what they gather lies in place.
        std::ranges::fill(counts, 0);
        std::int64_t mine = 0;
        for (const parallel::ShardPiece& piece : owners.owners(id)) {
            counts[static_cast<std::size_t>(piece.rank)] = piece.size;
            if (piece.rank < data.rank()) mine += piece.size;
        }
        const auto all = cast_span<float>(bytes_of(matrix));
        const auto own = all.subspan(mine, counts[static_cast<std::size_t>(data.rank())]);
        data.all_gather_v(label, wire(tools, own), wire(tools, all), counts);
    }
    all_gather_rows_among(tools, data, label, owners, 1, small, whole);
}

void all_gather_rows_among(Tools tools, parallel::Communicator& data, std::string_view label,
                           const parallel::ShardMap& owners, int stride,
                           std::span<const ParameterId> parameters,
                           const std::function<Matrix(ParameterId)>& whole) {
    if (data.size() == 1 || parameters.empty()) return;
    const kernels::Arena::Scope scope(tools.arena);
    std::vector<std::int64_t> counts(static_cast<std::size_t>(data.size()), 0);
    std::vector<std::int64_t> sent(counts.size(), 0);
    const std::int64_t mine = group_size(owners, data.rank(), parameters);
    std::int64_t copies = 0;
    for (int rank = data.rank() % stride; rank < data.size(); rank += stride) {
        counts[static_cast<std::size_t>(rank)] = group_size(owners, rank, parameters);
        sent[static_cast<std::size_t>(rank)] = mine;
        ++copies;
    }
    const DeviceSpan<float> received = tools.arena.take<float>(total_of(counts));
    // This rank's block at its place; or a copy for each rank that it goes to.
    const auto before = std::span(counts).first(static_cast<std::size_t>(data.rank()));
    const DeviceSpan<float> send = stride == 1 ? received.subspan(total_of(before), mine)
                                               : tools.arena.take<float>(copies * mine);
    for (std::int64_t at = 0; at < send.size();) {
        for (const ParameterId id : parameters) {
            const auto piece = owners.piece(data.rank(), id);
            if (!piece) continue;
            tools.device.copy(bytes_of(whole(id).row_range(piece->rows)),
                              cast_span<std::byte>(send.subspan(at, piece->size)), tools.stream);
            at += piece->size;
        }
    }
    if (stride == 1) {
        data.all_gather_v(label, wire(tools, send), wire(tools, received), counts);
    } else {
        data.all_to_all_v(label, wire(tools, send), sent, wire(tools, received), counts);
    }
    std::int64_t at = 0;
    for (int rank = data.rank() % stride; rank < data.size(); rank += stride) {
        for (const ParameterId id : parameters) {
            const auto piece = owners.piece(rank, id);
            if (!piece) continue;
            const DeviceSpan<const float> rows(received.subspan(at, piece->size));
            at += piece->size;
            if (rank == data.rank()) continue;  // they came from there
            tools.device.copy(cast_span<const std::byte>(rows),
                              bytes_of(whole(id).row_range(piece->rows)), tools.stream);
        }
    }
}

}  // namespace rankwise::sums
