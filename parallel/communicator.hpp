// A group of ranks that move data between each other. It moves bytes; it may reduce integers and
// maxima; it never adds floats (NUMERICS N10: the receiver adds, in the canonical order).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "parallel/flight_recorder.hpp"
#include "parallel/op.hpp"
#include "parallel/request.hpp"
#include "parallel/traffic.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::parallel {

/// What watches a rank's communication; shared by all communicators of the rank. Null members watch
/// nothing.
struct Instruments {
    std::shared_ptr<FlightRecorder> recorder;
    std::shared_ptr<Traffic> traffic;
    /// Debug: before each collective all ranks compare (operation, sequence number, label, sizes)
    /// and the one that differs is named in an InternalError. Every rank of a communicator must
    /// agree on it.
    bool check_collectives = false;
};

/// Anything contiguous that may be moved: a span, vector or array of a trivially copyable type.
template <class B>
concept Buffer = std::ranges::contiguous_range<B> && std::ranges::sized_range<B> &&
    std::is_trivially_copyable_v<std::ranges::range_value_t<B>>;
template <class A, class B>
concept SameElements = std::is_same_v<std::ranges::range_value_t<A>, std::ranges::range_value_t<B>>;

/// One of several orders of messages between the same two ranks: 0 unless it is named.
struct Channel {
    int number = 0;  ///< 0 … kChannels - 1
    friend auto operator<=>(const Channel&, const Channel&) = default;
};
inline constexpr int kChannels = 16;

/// What may be summed over ranks: integers, whose sum is the same in any order. int64: modulo 2^64;
/// UInt128: modulo 2^128.
template <class T>
concept Summable = std::is_same_v<T, std::int64_t> || std::is_same_v<T, UInt128>;
/// What may be compared over ranks. A double that is not a number wins both ways, and -0 is below
/// +0.
template <class T>
concept Comparable = Summable<T> || std::is_same_v<T, double>;

/// Values of all ranks in rank order, and how many came from each.
template <class T>
struct Gathered {
    std::vector<T> values;
    std::vector<std::int64_t> counts;
};

/// Every call starts with a label: what is being moved. "weights:layer 3" is counted under
/// "weights" and shown whole by the watchdog. Counts are elements; blocks are contiguous in rank
/// order; spans may be empty; a rank may be its own peer. Collective calls: every rank of the
/// communicator, in the same order. One thread at a time uses a communicator.
/// @throws InternalError if the caller's sizes do not fit each other or a peer's, EnvironmentError
/// if the transport fails.
class Communicator {
  public:
    virtual ~Communicator() = default;
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;

    [[nodiscard]] int rank() const { return rank_; }
    [[nodiscard]] int size() const { return size_; }
    /// "world", "data", …
    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] const Instruments& instruments() const { return instruments_; }
    /// Instruments::check_collectives of this communicator, and of those split from it afterwards.
    /// Every rank sets it at the same place among its calls.
    void check_collectives(bool on) { instruments_.check_collectives = on; }

    /// Collective. Returns when every rank has called it.
    void barrier(std::string_view label);

    /// Collective. `buffer` of `root` to all; equal sizes.
    template <Buffer B>
    void broadcast(std::string_view label, B&& buffer, int root) {
        broadcast_bytes(label, writable(buffer), element<B>(), root);
    }

    /// Collective. `send` of every rank, equal sizes, to `recv` [size * send.size] in rank order.
    template <Buffer S, Buffer R>
    requires SameElements<S, R>
    void all_gather(std::string_view label, const S& send, R&& recv) {
        all_gather_bytes(label, readable(send), writable(recv), element<S>());
    }
    template <Buffer S, Buffer R>
    requires SameElements<S, R> Request start_all_gather(std::string_view label, const S& send,
                                                         R&& recv) {
        return start_all_gather_bytes(label, readable(send), writable(recv), element<S>());
    }

    /// Collective. The same with counts[r] elements from rank r; all ranks give the same counts.
    /// `send` may be this rank's block of `recv`, which is then in place already.
    template <Buffer S, Buffer R>
    requires SameElements<S, R>
    void all_gather_v(std::string_view label, const S& send, R&& recv,
                      std::span<const std::int64_t> counts) {
        all_gather_v_bytes(label, readable(send), writable(recv), counts, element<S>());
    }
    template <Buffer S, Buffer R>
    requires SameElements<S, R> Request start_all_gather_v(std::string_view label, const S& send,
                                                           R&& recv,
                                                           std::span<const std::int64_t> counts) {
        return start_all_gather_v_bytes(label, readable(send), writable(recv), counts,
                                        element<S>());
    }
    /// Collective. The same, where the ranks do not know each other's counts yet.
    template <Buffer S>
    [[nodiscard]] auto all_gather_v(std::string_view label, const S& send) {
        Gathered<std::ranges::range_value_t<S>> result;
        result.counts = exchange_counts(label, static_cast<std::int64_t>(std::ranges::size(send)));
        result.values.resize(static_cast<std::size_t>(total(result.counts)));
        all_gather_v(label, send, result.values, result.counts);
        return result;
    }

    /// Collective. Block r of `send` goes to rank r; block r of `recv` comes from rank r; all
    /// blocks are equal.
    template <Buffer S, Buffer R>
    requires SameElements<S, R>
    void all_to_all(std::string_view label, const S& send, R&& recv) {
        all_to_all_bytes(label, readable(send), writable(recv), element<S>());
    }

    /// Collective. The same with send_counts[r] elements to rank r and recv_counts[r] from it.
    template <Buffer S, Buffer R>
    requires SameElements<S, R>
    void all_to_all_v(std::string_view label, const S& send,
                      std::span<const std::int64_t> send_counts, R&& recv,
                      std::span<const std::int64_t> recv_counts) {
        start_all_to_all_v_bytes(label, readable(send), send_counts, writable(recv), recv_counts,
                                 element<S>())
            .wait();
    }
    template <Buffer S, Buffer R>
    requires SameElements<S, R> Request start_all_to_all_v(
        std::string_view label, const S& send, std::span<const std::int64_t> send_counts, R&& recv,
        std::span<const std::int64_t> recv_counts) {
        return start_all_to_all_v_bytes(label, readable(send), send_counts, writable(recv),
                                        recv_counts, element<S>());
    }

    /// Collective. counts[r] elements from rank r to `recv` of `root`, in rank order; all ranks
    /// give the same counts, and ranks other than the root an empty `recv`.
    template <Buffer S, Buffer R>
    requires SameElements<S, R>
    void gather_v(std::string_view label, const S& send, R&& recv,
                  std::span<const std::int64_t> counts, int root) {
        gather_v_bytes(label, readable(send), writable(recv), counts, element<S>(), root);
    }
    /// Collective. The same, where the ranks do not know each other's counts yet; empty except on
    /// `root`.
    template <Buffer S>
    [[nodiscard]] auto gather_v(std::string_view label, const S& send, int root) {
        Gathered<std::ranges::range_value_t<S>> result;
        auto counts = exchange_counts(label, static_cast<std::int64_t>(std::ranges::size(send)));
        if (rank_ == root) result.values.resize(static_cast<std::size_t>(total(counts)));
        gather_v(label, send, result.values, counts, root);
        if (rank_ == root) result.counts = std::move(counts);
        return result;
    }

    /// Messages between two ranks on one channel arrive in the order sent, whatever goes on on
    /// other channels; the sizes of both ends are equal. A blocking send may wait for its receive,
    /// so a message to oneself goes through send_receive() or a start_…().
    template <Buffer S>
    void send(std::string_view label, const S& data, int to) {
        start_send_bytes(label, readable(data), to, {}).wait();
    }
    template <Buffer R>
    void receive(std::string_view label, R&& data, int from) {
        start_receive_bytes(label, writable(data), from, {}).wait();
    }
    template <Buffer S, Buffer R>
    void send_receive(std::string_view label, const S& data, int to, R&& received, int from) {
        send_receive_bytes(label, readable(data), to, writable(received), from);
    }
    template <Buffer S>
    Request start_send(std::string_view label, const S& data, int to, Channel channel = {}) {
        return start_send_bytes(label, readable(data), to, channel);
    }
    template <Buffer R>
    Request start_receive(std::string_view label, R&& data, int from, Channel channel = {}) {
        return start_receive_bytes(label, writable(data), from, channel);
    }

    /// Collective. Element by element over the ranks, in place; equal sizes.
    template <Buffer B>
    requires Summable<std::ranges::range_value_t<B>>
    void all_reduce_sum(std::string_view label, B&& values) {
        reduce(label, Reduction::sum, std::span(values));
    }
    template <Buffer B>
    requires Comparable<std::ranges::range_value_t<B>>
    void all_reduce_min(std::string_view label, B&& values) {
        reduce(label, Reduction::min, std::span(values));
    }
    template <Buffer B>
    requires Comparable<std::ranges::range_value_t<B>>
    void all_reduce_max(std::string_view label, B&& values) {
        reduce(label, Reduction::max, std::span(values));
    }
    /// The same for one value.
    template <Summable T>
    [[nodiscard]] T all_reduce_sum(std::string_view label, T value) {
        reduce(label, Reduction::sum, std::span(&value, 1));
        return value;
    }
    template <Comparable T>
    [[nodiscard]] T all_reduce_min(std::string_view label, T value) {
        reduce(label, Reduction::min, std::span(&value, 1));
        return value;
    }
    template <Comparable T>
    [[nodiscard]] T all_reduce_max(std::string_view label, T value) {
        reduce(label, Reduction::max, std::span(&value, 1));
        return value;
    }

    /// Collective. Ranks that give the same colour (>= 0) form a new communicator, in the order of
    /// (key, rank). It shares the instruments. A rank that gives a colour below 0 belongs to none
    /// and gets null.
    [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key, std::string_view name);

  protected:
    enum class Reduction : std::uint8_t { sum, min, max };
    enum class ReducedType : std::uint8_t { int64, uint128 };

    Communicator(std::string name, int rank, int size, Instruments instruments);

    // What an implementation provides: bytes only, sizes already checked on this rank. Counts are
    // bytes. `label` is for messages of errors. The blocking forms may assume nothing about
    // outstanding requests of the same communicator.
    virtual void do_barrier(std::string_view label) = 0;
    virtual void do_broadcast(std::string_view label, std::span<std::byte> buffer, int root) = 0;
    virtual void do_all_gather_v(std::string_view label, std::span<const std::byte> send,
                                 std::span<std::byte> recv,
                                 std::span<const std::int64_t> counts) = 0;
    virtual void do_gather_v(std::string_view label, std::span<const std::byte> send,
                             std::span<std::byte> recv, std::span<const std::int64_t> counts,
                             int root) = 0;
    virtual void do_all_reduce(std::string_view label, Reduction reduction, ReducedType type,
                               std::span<std::byte> values) = 0;
    virtual std::unique_ptr<Request::State> do_start_all_gather_v(
        std::string_view label, std::span<const std::byte> send, std::span<std::byte> recv,
        std::span<const std::int64_t> counts) = 0;
    virtual std::unique_ptr<Request::State> do_start_all_to_all_v(
        std::string_view label, std::span<const std::byte> send,
        std::span<const std::int64_t> send_counts, std::span<std::byte> recv,
        std::span<const std::int64_t> recv_counts) = 0;
    virtual std::unique_ptr<Request::State> do_start_send(std::string_view label,
                                                          std::span<const std::byte> data, int to,
                                                          Channel channel) = 0;
    virtual std::unique_ptr<Request::State> do_start_receive(std::string_view label,
                                                             std::span<std::byte> data, int from,
                                                             Channel channel) = 0;
    virtual std::unique_ptr<Communicator> do_split(int color, int key, std::string name) = 0;

  private:
    struct Call;

    template <class B>
    static constexpr std::int64_t element() {
        return static_cast<std::int64_t>(sizeof(std::ranges::range_value_t<B>));
    }
    template <class B>
    static std::span<const std::byte> readable(const B& buffer) {
        return std::as_bytes(std::span(buffer));
    }
    template <class B>
    static std::span<std::byte> writable(B& buffer) {
        return std::as_writable_bytes(std::span(buffer));
    }
    static std::int64_t total(std::span<const std::int64_t> counts);

    void broadcast_bytes(std::string_view label, std::span<std::byte> buffer, std::int64_t element,
                         int root);
    void all_gather_bytes(std::string_view label, std::span<const std::byte> send,
                          std::span<std::byte> recv, std::int64_t element);
    Request start_all_gather_bytes(std::string_view label, std::span<const std::byte> send,
                                   std::span<std::byte> recv, std::int64_t element);
    void all_gather_v_bytes(std::string_view label, std::span<const std::byte> send,
                            std::span<std::byte> recv, std::span<const std::int64_t> counts,
                            std::int64_t element);
    Request start_all_gather_v_bytes(std::string_view label, std::span<const std::byte> send,
                                     std::span<std::byte> recv,
                                     std::span<const std::int64_t> counts, std::int64_t element);
    void all_to_all_bytes(std::string_view label, std::span<const std::byte> send,
                          std::span<std::byte> recv, std::int64_t element);
    Request start_all_to_all_v_bytes(std::string_view label, std::span<const std::byte> send,
                                     std::span<const std::int64_t> send_counts,
                                     std::span<std::byte> recv,
                                     std::span<const std::int64_t> recv_counts,
                                     std::int64_t element);
    void gather_v_bytes(std::string_view label, std::span<const std::byte> send,
                        std::span<std::byte> recv, std::span<const std::int64_t> counts,
                        std::int64_t element, int root);
    Request start_send_bytes(std::string_view label, std::span<const std::byte> data, int to,
                             Channel channel);
    Request start_receive_bytes(std::string_view label, std::span<std::byte> data, int from,
                                Channel channel);
    void send_receive_bytes(std::string_view label, std::span<const std::byte> data, int to,
                            std::span<std::byte> received, int from);
    void reduce(std::string_view label, Reduction reduction, std::span<std::int64_t> values);
    void reduce(std::string_view label, Reduction reduction, std::span<UInt128> values);
    void reduce(std::string_view label, Reduction reduction, std::span<double> values);
    void reduce_bytes(std::string_view label, Reduction reduction, ReducedType type,
                      std::span<std::byte> values, std::int64_t element);
    std::vector<std::int64_t> exchange_counts(std::string_view label, std::int64_t count);

    // Ends in a throw on every rank if they do not all make the same call.
    void compare_calls(const Call& call, int root, std::int64_t element, std::int64_t common_size);
    void compare_blocks(const Call& call, std::span<const std::int64_t> send_counts,
                        std::span<const std::int64_t> recv_counts);
    void check_rank(const Call& call, std::string_view role, int rank) const;
    void check_channel(const Call& call, Channel channel) const;
    [[nodiscard]] std::string describe(const Call& call) const;
    std::uint64_t begin(const Call& call, std::int64_t bytes, std::int64_t sent,
                        bool waiting = true);
    void end(std::uint64_t ticket);
    [[nodiscard]] std::int64_t to_others(std::span<const std::int64_t> counts) const;
    std::span<const std::int64_t> in_bytes(std::vector<std::int64_t>& scratch,
                                           std::span<const std::int64_t> counts,
                                           std::int64_t element, const Call& call) const;
    std::span<const std::int64_t> equal_blocks(std::vector<std::int64_t>& scratch,
                                               std::int64_t bytes) const;
    Request start_blocks(const Call& call, std::span<const std::byte> send,
                         std::span<const std::int64_t> send_bytes, std::span<std::byte> recv,
                         std::span<const std::int64_t> recv_bytes, std::int64_t element,
                         std::int64_t common_size);

    std::string name_;
    int rank_;
    int size_;
    Instruments instruments_;
    std::uint64_t collectives_ = 0;
    std::vector<std::int64_t>
        send_bytes_;  // scratch of one call, kept so that steady calls allocate nothing
    std::vector<std::int64_t> recv_bytes_;
};

}  // namespace rankwise::parallel
