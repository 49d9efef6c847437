// A communicator over MPI. Includes mpi.h: others get theirs from MpiSession::world().
#pragma once

#include <mpi.h>

#include <memory>
#include <string>

#include "parallel/communicator.hpp"

namespace rankwise::parallel {

/// MPI has no 128-bit integers: their type and reductions, shared by the communicators of a
/// session.
class MpiReductions {
  public:
    MpiReductions();
    ~MpiReductions();
    MpiReductions(const MpiReductions&) = delete;
    MpiReductions& operator=(const MpiReductions&) = delete;

    [[nodiscard]] MPI_Datatype uint128() const { return uint128_; }
    /// @param kind  0 sum, 1 minimum, 2 maximum.
    [[nodiscard]] MPI_Op of_int64(int kind) const;
    [[nodiscard]] MPI_Op of_uint128(int kind) const { return uint128_ops_[kind]; }

  private:
    MPI_Datatype uint128_ = MPI_DATATYPE_NULL;
    MPI_Op uint128_ops_[3] = {MPI_OP_NULL, MPI_OP_NULL, MPI_OP_NULL};
};

class MpiCommunicator final : public Communicator {
  public:
    /// Takes ownership of `comm`, whose errors come back as return codes from now on.
    /// @param piece_bytes  the most that one MPI message carries; more is cut, in order.
    MpiCommunicator(MPI_Comm comm, std::shared_ptr<const MpiReductions> reductions,
                    std::string name, Instruments instruments, std::int64_t piece_bytes);
    ~MpiCommunicator() override;

    /// For measuring alone (mpi_float_sum).
    [[nodiscard]] MPI_Comm handle() const { return comm_; }

  private:
    class Pending;

    void do_barrier(std::string_view label) override;
    void do_broadcast(std::string_view label, std::span<std::byte> buffer, int root) override;
    void do_all_gather_v(std::string_view label, std::span<const std::byte> send,
                         std::span<std::byte> recv, std::span<const std::int64_t> counts) override;
    void do_gather_v(std::string_view label, std::span<const std::byte> send,
                     std::span<std::byte> recv, std::span<const std::int64_t> counts,
                     int root) override;
    void do_all_reduce(std::string_view label, Reduction reduction, ReducedType type,
                       std::span<std::byte> values) override;
    std::unique_ptr<Request::State> do_start_all_gather_v(
        std::string_view label, std::span<const std::byte> send, std::span<std::byte> recv,
        std::span<const std::int64_t> counts) override;
    std::unique_ptr<Request::State> do_start_all_to_all_v(
        std::string_view label, std::span<const std::byte> send,
        std::span<const std::int64_t> send_counts, std::span<std::byte> recv,
        std::span<const std::int64_t> recv_counts) override;
    std::unique_ptr<Request::State> do_start_send(std::string_view label,
                                                  std::span<const std::byte> data, int to,
                                                  Channel channel) override;
    std::unique_ptr<Request::State> do_start_receive(std::string_view label,
                                                     std::span<std::byte> data, int from,
                                                     Channel channel) override;
    std::unique_ptr<Communicator> do_split(int color, int key, std::string name) override;

    // The one place where lengths are cut: calls `piece` with consecutive parts of `bytes` that MPI
    // can count.
    template <class Byte, class F>
    void for_each_piece(std::span<Byte> bytes, const F& piece) const;
    static const void* source_of(std::span<const std::byte> send, const std::byte* place);
    [[nodiscard]] bool fits_one_call(std::span<const std::byte> all) const {
        return static_cast<std::int64_t>(all.size()) <= piece_bytes_;
    }
    [[nodiscard]] std::unique_ptr<Pending> pending(Op op, std::string_view label) const;
    void check(int code, Op op, std::string_view label) const;

    MPI_Comm comm_;
    std::shared_ptr<const MpiReductions> reductions_;
    std::int64_t piece_bytes_;
};

}  // namespace rankwise::parallel
