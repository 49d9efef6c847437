// A communicator over a post office: ranks are threads of one process.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.hpp"
#include "parallel/post_office.hpp"

namespace rankwise::parallel {

class ThreadCommunicator final : public Communicator {
  public:
    /// @param world_ranks  the members' ranks in the post office, by rank of this communicator.
    ThreadCommunicator(std::shared_ptr<PostOffice> office, std::uint64_t context,
                       std::vector<int> world_ranks, int rank, std::string name,
                       Instruments instruments);

    /// The communicator of all ranks of a post office.
    [[nodiscard]] static std::unique_ptr<Communicator> world(std::shared_ptr<PostOffice> office,
                                                             int size, int rank, std::string name,
                                                             Instruments instruments);

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

    [[nodiscard]] int world_rank(int rank) const {
        return world_ranks_[static_cast<std::size_t>(rank)];
    }
    [[nodiscard]] MessageKey collective_key(int source, std::uint64_t sequence) const;
    [[nodiscard]] std::string what(std::string_view label) const;

    std::shared_ptr<PostOffice> office_;
    std::uint64_t context_;
    std::vector<int> world_ranks_;
    std::uint64_t collectives_ = 0;
    using Counts = std::array<std::uint64_t, kChannels>;
    std::vector<Counts> sent_;      // messages so far, by receiver and channel
    std::vector<Counts> received_;  // by sender and channel
};

}  // namespace rankwise::parallel
