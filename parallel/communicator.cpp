#include "parallel/communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "parallel/call_signature.hpp"
#include "src/base/checked.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {

namespace {

std::int64_t size_of_bytes(std::span<const std::byte> bytes) {
    return static_cast<std::int64_t>(bytes.size());
}

// Doubles as integers of the same order, so that maxima are reduced as integers: negative ones have
// their magnitude bits flipped. The extreme integers are not-a-number patterns, which makes a NaN
// win.
std::int64_t order_key(double value, bool nan_is_largest) {
    if (std::isnan(value)) {
        return nan_is_largest ? std::numeric_limits<std::int64_t>::max()
                              : std::numeric_limits<std::int64_t>::min();
    }
    const auto bits = std::bit_cast<std::int64_t>(value);
    return bits >= 0 ? bits : bits ^ std::numeric_limits<std::int64_t>::max();
}

double from_order_key(std::int64_t key) {
    return std::bit_cast<double>(key >= 0 ? key : key ^ std::numeric_limits<std::int64_t>::max());
}

}  // namespace

struct Communicator::Call {
    Op op;
    std::string_view label;
};

Communicator::Communicator(std::string name, int rank, int size, Instruments instruments)
    : name_(std::move(name)), rank_(rank), size_(size), instruments_(std::move(instruments)) {}

std::int64_t Communicator::total(std::span<const std::int64_t> counts) {
    return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::string Communicator::describe(const Call& call) const {
    return fmt::format("{} '{}' on communicator {} ({} ranks)", name_of(call.op), call.label, name_,
                       size_);
}

std::uint64_t Communicator::begin(const Call& call, std::int64_t bytes, std::int64_t sent,
                                  bool waiting) {
    if (instruments_.traffic) instruments_.traffic->count(name_, call.op, call.label, sent);
    if (!instruments_.recorder) return 0;
    return instruments_.recorder->begin(call.op, name_, call.label, bytes, waiting);
}

void Communicator::end(std::uint64_t ticket) {
    if (instruments_.recorder) instruments_.recorder->end(ticket);
}

std::int64_t Communicator::to_others(std::span<const std::int64_t> counts) const {
    return total(counts) - counts[static_cast<std::size_t>(rank_)];
}

void Communicator::check_rank(const Call& call, std::string_view role, int rank) const {
    ensure(rank >= 0 && rank < size_, "{}: the {} must be a rank below {}, found {}",
           describe(call), role, size_, rank);
}

void Communicator::check_channel(const Call& call, Channel channel) const {
    ensure(channel.number >= 0 && channel.number < kChannels,
           "{}: the channel must be below {}, found {}", describe(call), kChannels, channel.number);
}

std::span<const std::int64_t> Communicator::in_bytes(std::vector<std::int64_t>& scratch,
                                                     std::span<const std::int64_t> counts,
                                                     std::int64_t element, const Call& call) const {
    ensure(counts.size() == static_cast<std::size_t>(size_),
           "{}: expected one count for each of {} ranks, found {} counts", describe(call), size_,
           counts.size());
    scratch.resize(counts.size());
    for (std::size_t r = 0; r < counts.size(); ++r) {
        ensure(counts[r] >= 0, "{}: the count of rank {} is {}", describe(call), r, counts[r]);
        scratch[r] = counts[r] * element;
    }
    return scratch;
}

std::span<const std::int64_t> Communicator::equal_blocks(std::vector<std::int64_t>& scratch,
                                                         std::int64_t bytes) const {
    scratch.assign(static_cast<std::size_t>(size_), bytes);
    return scratch;
}

void Communicator::compare_calls(const Call& call, int root, std::int64_t element,
                                 std::int64_t common_size) {
    ++collectives_;
    if (!instruments_.check_collectives || size_ == 1) return;
    const CallSignature mine =
        make_signature(call.op, collectives_, root, element, common_size, call.label);
    std::vector<CallSignature> all(static_cast<std::size_t>(size_));
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(size_),
                                           std::int64_t{sizeof(CallSignature)});
    do_all_gather_v(call.label, std::as_bytes(std::span(&mine, 1)),
                    std::as_writable_bytes(std::span(all)), counts);
    const std::string difference = describe_difference(all);
    ensure(difference.empty(), "communicator {}: the ranks do not make the same call: {}", name_,
           difference);
}

void Communicator::compare_blocks(const Call& call, std::span<const std::int64_t> send_counts,
                                  std::span<const std::int64_t> recv_counts) {
    if (!instruments_.check_collectives || size_ == 1) return;
    std::vector<std::int64_t> announced(static_cast<std::size_t>(size_));
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(size_),
                                           std::int64_t{sizeof(std::int64_t)});
    do_start_all_to_all_v(call.label, std::as_bytes(send_counts), counts,
                          std::as_writable_bytes(std::span(announced)), counts)
        ->wait();
    for (std::size_t r = 0; r < announced.size(); ++r) {
        ensure(announced[r] == recv_counts[r],
               "{}: rank {} sends {} bytes to rank {}, which expects {}", describe(call), r,
               announced[r], rank_, recv_counts[r]);
    }
}

void Communicator::barrier(std::string_view label) {
    const Call call{Op::barrier, label};
    const auto ticket = begin(call, 0, 0);
    compare_calls(call, 0, 0, 0);
    do_barrier(label);
    end(ticket);
}

void Communicator::broadcast_bytes(std::string_view label, std::span<std::byte> buffer,
                                   std::int64_t element, int root) {
    const Call call{Op::broadcast, label};
    check_rank(call, "root", root);
    const std::int64_t bytes = size_of_bytes(buffer);
    const auto ticket = begin(call, bytes, rank_ == root ? bytes * (size_ - 1) : 0);
    compare_calls(call, root, element, bytes);
    do_broadcast(label, buffer, root);
    end(ticket);
}

void Communicator::all_gather_bytes(std::string_view label, std::span<const std::byte> send,
                                    std::span<std::byte> recv, std::int64_t element) {
    const Call call{Op::all_gather, label};
    const std::int64_t bytes = size_of_bytes(send);
    ensure(size_of_bytes(recv) == bytes * size_,
           "{}: expected room for {} x {} bytes, found {} bytes", describe(call), size_, bytes,
           recv.size());
    const auto ticket = begin(call, bytes * size_, bytes * (size_ - 1));
    compare_calls(call, 0, element, bytes);
    do_all_gather_v(label, send, recv, equal_blocks(recv_bytes_, bytes));
    end(ticket);
}

Request Communicator::start_all_gather_bytes(std::string_view label,
                                             std::span<const std::byte> send,
                                             std::span<std::byte> recv, std::int64_t element) {
    const Call call{Op::all_gather, label};
    const std::int64_t bytes = size_of_bytes(send);
    ensure(size_of_bytes(recv) == bytes * size_,
           "{}: expected room for {} x {} bytes, found {} bytes", describe(call), size_, bytes,
           recv.size());
    const auto ticket = begin(call, bytes * size_, bytes * (size_ - 1), false);
    compare_calls(call, 0, element, bytes);
    return {do_start_all_gather_v(label, send, recv, equal_blocks(recv_bytes_, bytes)),
            instruments_.recorder, ticket};
}

void Communicator::all_gather_v_bytes(std::string_view label, std::span<const std::byte> send,
                                      std::span<std::byte> recv,
                                      std::span<const std::int64_t> counts, std::int64_t element) {
    const Call call{Op::all_gather_v, label};
    const auto bytes = in_bytes(recv_bytes_, counts, element, call);
    const std::int64_t mine = bytes[static_cast<std::size_t>(rank_)];
    ensure(size_of_bytes(send) == mine && size_of_bytes(recv) == total(bytes),
           "{}: the counts ask for {} bytes from this rank and {} in all, found {} and {}",
           describe(call), mine, total(bytes), send.size(), recv.size());
    const auto ticket = begin(call, total(bytes), mine * (size_ - 1));
    compare_calls(call, 0, element, counts_key(counts));
    do_all_gather_v(label, send, recv, bytes);
    end(ticket);
}

Request Communicator::start_all_gather_v_bytes(std::string_view label,
                                               std::span<const std::byte> send,
                                               std::span<std::byte> recv,
                                               std::span<const std::int64_t> counts,
                                               std::int64_t element) {
    const Call call{Op::all_gather_v, label};
    const auto bytes = in_bytes(recv_bytes_, counts, element, call);
    const std::int64_t mine = bytes[static_cast<std::size_t>(rank_)];
    ensure(size_of_bytes(send) == mine && size_of_bytes(recv) == total(bytes),
           "{}: the counts ask for {} bytes from this rank and {} in all, found {} and {}",
           describe(call), mine, total(bytes), send.size(), recv.size());
    const auto ticket = begin(call, total(bytes), mine * (size_ - 1), false);
    compare_calls(call, 0, element, counts_key(counts));
    return {do_start_all_gather_v(label, send, recv, bytes), instruments_.recorder, ticket};
}

Request Communicator::start_blocks(const Call& call, std::span<const std::byte> send,
                                   std::span<const std::int64_t> send_bytes,
                                   std::span<std::byte> recv,
                                   std::span<const std::int64_t> recv_bytes, std::int64_t element,
                                   std::int64_t common_size) {
    ensure(size_of_bytes(send) == total(send_bytes) && size_of_bytes(recv) == total(recv_bytes),
           "{}: the counts ask for {} bytes to send and {} to receive, found {} and {}",
           describe(call), total(send_bytes), total(recv_bytes), send.size(), recv.size());
    const auto ticket =
        begin(call, std::max(total(send_bytes), total(recv_bytes)), to_others(send_bytes), false);
    compare_calls(call, 0, element, common_size);
    compare_blocks(call, send_bytes, recv_bytes);
    return {do_start_all_to_all_v(call.label, send, send_bytes, recv, recv_bytes),
            instruments_.recorder, ticket};
}

void Communicator::all_to_all_bytes(std::string_view label, std::span<const std::byte> send,
                                    std::span<std::byte> recv, std::int64_t element) {
    const Call call{Op::all_to_all, label};
    const std::int64_t block = size_of_bytes(send) / size_;
    ensure(
        block * size_ == size_of_bytes(send) && block % element == 0 && recv.size() == send.size(),
        "{}: expected {} equal blocks to send and as much room to receive, found {} and {} "
        "bytes of elements of {}",
        describe(call), size_, send.size(), recv.size(), element);
    start_blocks(call, send, equal_blocks(send_bytes_, block), recv,
                 equal_blocks(recv_bytes_, block), element, block)
        .wait();
}

Request Communicator::start_all_to_all_v_bytes(std::string_view label,
                                               std::span<const std::byte> send,
                                               std::span<const std::int64_t> send_counts,
                                               std::span<std::byte> recv,
                                               std::span<const std::int64_t> recv_counts,
                                               std::int64_t element) {
    const Call call{Op::all_to_all_v, label};
    const auto send_bytes = in_bytes(send_bytes_, send_counts, element, call);
    const auto recv_bytes = in_bytes(recv_bytes_, recv_counts, element, call);
    return start_blocks(call, send, send_bytes, recv, recv_bytes, element, kAnySize);
}

void Communicator::gather_v_bytes(std::string_view label, std::span<const std::byte> send,
                                  std::span<std::byte> recv, std::span<const std::int64_t> counts,
                                  std::int64_t element, int root) {
    const Call call{Op::gather_v, label};
    check_rank(call, "root", root);
    const auto bytes = in_bytes(recv_bytes_, counts, element, call);
    const std::int64_t mine = bytes[static_cast<std::size_t>(rank_)];
    const std::int64_t room = rank_ == root ? total(bytes) : 0;
    ensure(size_of_bytes(send) == mine && size_of_bytes(recv) == room,
           "{}: the counts ask for {} bytes to send and {} to receive, found {} and {}",
           describe(call), mine, room, send.size(), recv.size());
    const auto ticket = begin(call, std::max(mine, room), rank_ == root ? 0 : mine);
    compare_calls(call, root, element, counts_key(counts));
    do_gather_v(label, send, recv, bytes, root);
    end(ticket);
}

Request Communicator::start_send_bytes(std::string_view label, std::span<const std::byte> data,
                                       int to, Channel channel) {
    const Call call{Op::send, label};
    check_rank(call, "receiver", to);
    check_channel(call, channel);
    const std::int64_t bytes = size_of_bytes(data);
    const auto ticket = begin(call, bytes, to == rank_ ? 0 : bytes, false);
    return {do_start_send(label, data, to, channel), instruments_.recorder, ticket};
}

Request Communicator::start_receive_bytes(std::string_view label, std::span<std::byte> data,
                                          int from, Channel channel) {
    const Call call{Op::receive, label};
    check_rank(call, "sender", from);
    check_channel(call, channel);
    const auto ticket = begin(call, size_of_bytes(data), 0, false);
    return {do_start_receive(label, data, from, channel), instruments_.recorder, ticket};
}

void Communicator::send_receive_bytes(std::string_view label, std::span<const std::byte> data,
                                      int to, std::span<std::byte> received, int from) {
    const Call call{Op::send_receive, label};
    check_rank(call, "receiver", to);
    check_rank(call, "sender", from);
    const std::int64_t bytes = size_of_bytes(data);
    const auto ticket =
        begin(call, std::max(bytes, size_of_bytes(received)), to == rank_ ? 0 : bytes);
    const auto receiving = do_start_receive(label, received, from, {});
    do_start_send(label, data, to, {})->wait();
    receiving->wait();
    end(ticket);
}

void Communicator::reduce(std::string_view label, Reduction reduction,
                          std::span<std::int64_t> values) {
    reduce_bytes(label, reduction, ReducedType::int64, std::as_writable_bytes(values),
                 sizeof(std::int64_t));
}

void Communicator::reduce(std::string_view label, Reduction reduction, std::span<UInt128> values) {
    reduce_bytes(label, reduction, ReducedType::uint128, std::as_writable_bytes(values),
                 sizeof(UInt128));
}

void Communicator::reduce(std::string_view label, Reduction reduction, std::span<double> values) {
    std::vector<std::int64_t> keys(values.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = order_key(values[i], reduction == Reduction::max);
    }
    reduce(label, reduction, std::span(keys));
    for (std::size_t i = 0; i < keys.size(); ++i) values[i] = from_order_key(keys[i]);
}

void Communicator::reduce_bytes(std::string_view label, Reduction reduction, ReducedType type,
                                std::span<std::byte> values, std::int64_t element) {
    const Call call{Op::all_reduce, label};
    const std::int64_t bytes = size_of_bytes(values);
    const auto ticket = begin(call, bytes, bytes * (size_ - 1));
    // The kind of reduction is compared in the place of the root, which a reduction has none of.
    compare_calls(call, static_cast<int>(reduction), element, bytes);
    do_all_reduce(label, reduction, type, values);
    end(ticket);
}

std::vector<std::int64_t> Communicator::exchange_counts(std::string_view label,
                                                        std::int64_t count) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(size_));
    all_gather(label, std::span(&count, 1), counts);
    return counts;
}

std::unique_ptr<Communicator> Communicator::split(int color, int key, std::string_view name) {
    const Call call{Op::split, name};
    const auto ticket = begin(call, 0, 0);
    compare_calls(call, 0, 0, 0);
    auto result = do_split(color, key, std::string(name));
    end(ticket);
    return result;
}

}  // namespace rankwise::parallel
