#include "parallel/mpi_communicator.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "parallel/copy_bytes.hpp"
#include "parallel/index.hpp"
#include "parallel/reduce.hpp"
#include "src/base/checked.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {

namespace {

// Messages of send() and receive(), a tag for each channel, and those inside collectives never
// meet.
constexpr int kCollectiveTag = 1;
constexpr int kMessageTag = 2;

template <int kind>
void reduce_uint128(void* in, void* inout, int* length, MPI_Datatype* /*type*/) {
    const auto* a = static_cast<const UInt128*>(in);
    auto* b = static_cast<UInt128*>(inout);
    for (int i = 0; i < *length; ++i) b[i] = combine(kind, a[i], b[i]);
}

bool all_equal(std::span<const std::int64_t> counts) {
    return std::adjacent_find(counts.begin(), counts.end(), std::not_equal_to<>()) == counts.end();
}

[[noreturn]] void throw_mpi(int code, std::string_view what) {
    char text[MPI_MAX_ERROR_STRING] = {};
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw EnvironmentError(fmt::format(
        "{} failed: {}; a rank or the network may be gone, the other ranks' logs may say "
        "more",
        what, std::string_view(text, index(length))));
}

}  // namespace

MpiReductions::MpiReductions() {
    MPI_Type_contiguous(sizeof(UInt128), MPI_BYTE, &uint128_);
    MPI_Type_commit(&uint128_);
    MPI_Op_create(&reduce_uint128<0>, 1, &uint128_ops_[0]);
    MPI_Op_create(&reduce_uint128<1>, 1, &uint128_ops_[1]);
    MPI_Op_create(&reduce_uint128<2>, 1, &uint128_ops_[2]);
}

MpiReductions::~MpiReductions() {
    if (std::uncaught_exceptions() > 0) return;
    for (MPI_Op& op : uint128_ops_) MPI_Op_free(&op);
    MPI_Type_free(&uint128_);
}

MPI_Op MpiReductions::of_int64(int kind) const {
    if (kind == 0) return MPI_SUM;
    return kind == 1 ? MPI_MIN : MPI_MAX;
}

/// MPI requests of one call, with what MPI reads until they are complete.
class MpiCommunicator::Pending final : public Request::State {
  public:
    explicit Pending(std::string what) : what_(std::move(what)) {}

    /// Room for the counts and displacements of a vector collective.
    std::vector<int> counts;
    std::vector<int> offsets;

    /// A slot for a request; `expected` bytes are to arrive (below zero: nothing to check).
    MPI_Request* add(std::int64_t expected = -1) {
        expected_.push_back(expected);
        return &requests_.emplace_back(MPI_REQUEST_NULL);
    }
    bool test() override {
        for (; next_ < requests_.size(); ++next_) {
            int flag = 0;
            MPI_Status status;
            const int code = MPI_Test(&requests_[next_], &flag, &status);
            if (code == MPI_SUCCESS && flag == 0) return false;
            check_arrival(code, status);
        }
        return true;
    }
    void wait() override {
        for (; next_ < requests_.size(); ++next_) {
            MPI_Status status;
            const int code = MPI_Wait(&requests_[next_], &status);
            check_arrival(code, status);
        }
    }

  private:
    void check_arrival(int code, MPI_Status& status) const {
        if (code != MPI_SUCCESS) {
            int kind = 0;
            MPI_Error_class(code, &kind);
            ensure(kind != MPI_ERR_TRUNCATE, "{}: expected {} bytes, the sender sent more", what_,
                   expected_[next_]);
            throw_mpi(code, what_);
        }
        if (expected_[next_] < 0) return;
        int arrived = 0;
        MPI_Get_count(&status, MPI_BYTE, &arrived);
        ensure(arrived == expected_[next_], "{}: expected {} bytes from rank {}, which sent {}",
               what_, expected_[next_], status.MPI_SOURCE, arrived);
    }

    std::string what_;
    std::vector<MPI_Request> requests_;
    std::vector<std::int64_t> expected_;
    std::size_t next_ = 0;
};

namespace {

int rank_in(MPI_Comm comm) {
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    return rank;
}

int size_of(MPI_Comm comm) {
    int size = 0;
    MPI_Comm_size(comm, &size);
    return size;
}

}  // namespace

MpiCommunicator::MpiCommunicator(MPI_Comm comm, std::shared_ptr<const MpiReductions> reductions,
                                 std::string name, Instruments instruments,
                                 std::int64_t piece_bytes)
    : Communicator(std::move(name), rank_in(comm), size_of(comm), std::move(instruments)),
      comm_(comm),
      reductions_(std::move(reductions)),
      piece_bytes_(piece_bytes) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
}

MpiCommunicator::~MpiCommunicator() {
    // While an exception unwinds, the other ranks are elsewhere and the job is about to be aborted.
    if (std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
}

void MpiCommunicator::check(int code, Op op, std::string_view label) const {
    if (code == MPI_SUCCESS) return;
    throw_mpi(code, fmt::format("{} '{}' on communicator {} (rank {} of {})", name_of(op), label,
                                name(), rank(), size()));
}

std::unique_ptr<MpiCommunicator::Pending> MpiCommunicator::pending(Op op,
                                                                   std::string_view label) const {
    return std::make_unique<Pending>(fmt::format("{} '{}' on communicator {} (rank {} of {})",
                                                 name_of(op), label, name(), rank(), size()));
}

template <class Byte, class F>
void MpiCommunicator::for_each_piece(std::span<Byte> bytes, const F& piece) const {
    const std::size_t most = index(piece_bytes_);
    while (bytes.size() > most) {
        piece(bytes.first(most));
        bytes = bytes.subspan(most);
    }
    piece(bytes);
}

void MpiCommunicator::do_barrier(std::string_view label) {
    check(MPI_Barrier(comm_), Op::barrier, label);
}

void MpiCommunicator::do_broadcast(std::string_view label, std::span<std::byte> buffer, int root) {
    for_each_piece(buffer, [&](std::span<std::byte> piece) {
        check(MPI_Bcast(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, root, comm_),
              Op::broadcast, label);
    });
}

/// Where this rank's block is gathered from; MPI wants to be told that it is at its place.
const void* MpiCommunicator::source_of(std::span<const std::byte> send, const std::byte* place) {
    return !send.empty() && send.data() == place ? MPI_IN_PLACE : send.data();
}

void MpiCommunicator::do_all_gather_v(std::string_view label, std::span<const std::byte> send,
                                      std::span<std::byte> recv,
                                      std::span<const std::int64_t> counts) {
    const int bytes = static_cast<int>(std::min<std::size_t>(send.size(), index(piece_bytes_)));
    if (fits_one_call(recv) && all_equal(counts)) {
        check(MPI_Allgather(source_of(send, recv.data() + index(bytes) * index(rank())), bytes,
                            MPI_BYTE, recv.data(), bytes, MPI_BYTE, comm_),
              Op::all_gather, label);
        return;
    }
    do_start_all_gather_v(label, send, recv, counts)->wait();
}

std::unique_ptr<Request::State> MpiCommunicator::do_start_all_gather_v(
    std::string_view label, std::span<const std::byte> send, std::span<std::byte> recv,
    std::span<const std::int64_t> counts) {
    auto state = pending(Op::all_gather, label);
    if (fits_one_call(recv)) {
        int offset = 0;
        for (const std::int64_t count : counts) {
            state->counts.push_back(static_cast<int>(count));
            state->offsets.push_back(offset);
            offset += static_cast<int>(count);
        }
        check(MPI_Iallgatherv(source_of(send, recv.data() + state->offsets[index(rank())]),
                              static_cast<int>(send.size()), MPI_BYTE, recv.data(),
                              state->counts.data(), state->offsets.data(), MPI_BYTE, comm_,
                              state->add()),
              Op::all_gather, label);
        return state;
    }
    // Offsets beyond what an int holds: each rank's block is broadcast, in pieces.
    std::size_t offset = 0;
    for (int r = 0; r < size(); ++r) {
        const auto block = recv.subspan(offset, index(counts[index(r)]));
        offset += block.size();
        if (r == rank()) copy_bytes(send, block);
        for_each_piece(block, [&](std::span<std::byte> piece) {
            check(MPI_Ibcast(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, r, comm_,
                             state->add()),
                  Op::all_gather, label);
        });
    }
    return state;
}

void MpiCommunicator::do_gather_v(std::string_view label, std::span<const std::byte> send,
                                  std::span<std::byte> recv, std::span<const std::int64_t> counts,
                                  int root) {
    std::vector<std::int64_t> to(index(size()));
    std::vector<std::int64_t> from(index(size()));
    to[index(root)] = static_cast<std::int64_t>(send.size());
    if (rank() == root) from.assign(counts.begin(), counts.end());
    do_start_all_to_all_v(label, send, to, recv, from)->wait();
}

std::unique_ptr<Request::State> MpiCommunicator::do_start_all_to_all_v(
    std::string_view label, std::span<const std::byte> send,
    std::span<const std::int64_t> send_counts, std::span<std::byte> recv,
    std::span<const std::int64_t> recv_counts) {
    // Point to point, the fastest form measured, and blocks of any size. Receives first, so that
    // nothing arrives unexpected; peers in a rotated order, so that not all send to the same rank
    // at once.
    auto state = pending(Op::all_to_all_v, label);
    std::vector<std::int64_t> send_offsets(index(size()));
    std::vector<std::int64_t> recv_offsets(index(size()));
    for (std::size_t r = 1; r < index(size()); ++r) {
        send_offsets[r] = send_offsets[r - 1] + send_counts[r - 1];
        recv_offsets[r] = recv_offsets[r - 1] + recv_counts[r - 1];
    }
    const auto block = [](auto all, const auto& offsets, auto counts, int r) {
        return all.subspan(index(offsets[index(r)]), index(counts[index(r)]));
    };
    const auto own = block(send, send_offsets, send_counts, rank());
    const auto own_place = block(recv, recv_offsets, recv_counts, rank());
    ensure(own.size() == own_place.size(), "'{}': rank {} sends itself {} bytes and expects {}",
           label, rank(), own.size(), own_place.size());
    copy_bytes(own, own_place);
    for (int turn = 1; turn < size(); ++turn) {
        const int peer = (rank() - turn + size()) % size();
        const auto place = block(recv, recv_offsets, recv_counts, peer);
        if (place.empty()) continue;
        for_each_piece(place, [&](std::span<std::byte> piece) {
            const int bytes = static_cast<int>(piece.size());
            check(MPI_Irecv(piece.data(), bytes, MPI_BYTE, peer, kCollectiveTag, comm_,
                            state->add(bytes)),
                  Op::all_to_all_v, label);
        });
    }
    for (int turn = 1; turn < size(); ++turn) {
        const int peer = (rank() + turn) % size();
        const auto data = block(send, send_offsets, send_counts, peer);
        if (data.empty()) continue;
        for_each_piece(data, [&](std::span<const std::byte> piece) {
            check(MPI_Isend(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, peer,
                            kCollectiveTag, comm_, state->add()),
                  Op::all_to_all_v, label);
        });
    }
    return state;
}

void MpiCommunicator::do_all_reduce(std::string_view label, Reduction reduction, ReducedType type,
                                    std::span<std::byte> values) {
    const int kind = static_cast<int>(reduction);
    const bool wide = type == ReducedType::uint128;
    const std::size_t element = wide ? sizeof(UInt128) : sizeof(std::int64_t);
    const std::size_t most = std::max<std::size_t>(1, index(piece_bytes_) / element) * element;
    for (std::size_t at = 0; at < values.size(); at += most) {
        const auto piece = values.subspan(at, std::min(most, values.size() - at));
        check(MPI_Allreduce(MPI_IN_PLACE, piece.data(), static_cast<int>(piece.size() / element),
                            wide ? reductions_->uint128() : MPI_INT64_T,
                            wide ? reductions_->of_uint128(kind) : reductions_->of_int64(kind),
                            comm_),
              Op::all_reduce, label);
    }
}

std::unique_ptr<Request::State> MpiCommunicator::do_start_send(std::string_view label,
                                                               std::span<const std::byte> data,
                                                               int to, Channel channel) {
    auto state = pending(Op::send, label);
    for_each_piece(data, [&](std::span<const std::byte> piece) {
        check(MPI_Isend(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, to,
                        kMessageTag + channel.number, comm_, state->add()),
              Op::send, label);
    });
    return state;
}

std::unique_ptr<Request::State> MpiCommunicator::do_start_receive(std::string_view label,
                                                                  std::span<std::byte> data,
                                                                  int from, Channel channel) {
    auto state = pending(Op::receive, label);
    for_each_piece(data, [&](std::span<std::byte> piece) {
        const int bytes = static_cast<int>(piece.size());
        check(MPI_Irecv(piece.data(), bytes, MPI_BYTE, from, kMessageTag + channel.number, comm_,
                        state->add(bytes)),
              Op::receive, label);
    });
    return state;
}

std::unique_ptr<Communicator> MpiCommunicator::do_split(int color, int key, std::string name) {
    MPI_Comm part = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, color < 0 ? MPI_UNDEFINED : color, key, &part), Op::split, name);
    if (part == MPI_COMM_NULL) return nullptr;
    return std::make_unique<MpiCommunicator>(part, reductions_, std::move(name), instruments(),
                                             piece_bytes_);
}

}  // namespace rankwise::parallel
