#include "parallel/thread_communicator.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>
#include <utility>

#include "parallel/copy_bytes.hpp"
#include "parallel/index.hpp"
#include "parallel/reduce.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {

namespace {

Message message_of(std::span<const std::byte> bytes) {
    return std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end());
}

}  // namespace

/// Messages that are to land in given places.
class ThreadCommunicator::Pending final : public Request::State {
  public:
    Pending(std::shared_ptr<PostOffice> office, int rank, std::string what)
        : office_(std::move(office)), rank_(rank), what_(std::move(what)) {}

    void expect(const MessageKey& key, std::span<std::byte> place) {
        parts_.push_back({key, place});
    }
    bool test() override {
        while (next_ < parts_.size()) {
            const Message message = office_->try_take(rank_, parts_[next_].key, what_);
            if (message == nullptr) return false;
            deliver(*message);
        }
        return true;
    }
    void wait() override {
        while (next_ < parts_.size()) deliver(*office_->take(rank_, parts_[next_].key, what_));
    }

  private:
    struct Part {
        MessageKey key;
        std::span<std::byte> place;
    };
    void deliver(const std::vector<std::byte>& message) {
        const Part& part = parts_[next_++];
        ensure(message.size() == part.place.size(),
               "{}: rank {} expects {} bytes from rank {}, which sent {}", what_, rank_,
               part.place.size(), part.key.source, message.size());
        copy_bytes(message, part.place);
    }

    std::shared_ptr<PostOffice> office_;
    int rank_;
    std::string what_;
    std::vector<Part> parts_;
    std::size_t next_ = 0;
};

ThreadCommunicator::ThreadCommunicator(std::shared_ptr<PostOffice> office, std::uint64_t context,
                                       std::vector<int> world_ranks, int rank, std::string name,
                                       Instruments instruments)
    : Communicator(std::move(name), rank, static_cast<int>(world_ranks.size()),
                   std::move(instruments)),
      office_(std::move(office)),
      context_(context),
      world_ranks_(std::move(world_ranks)),
      sent_(world_ranks_.size()),
      received_(world_ranks_.size()) {}

std::unique_ptr<Communicator> ThreadCommunicator::world(std::shared_ptr<PostOffice> office,
                                                        int size, int rank, std::string name,
                                                        Instruments instruments) {
    std::vector<int> ranks(index(size));
    std::iota(ranks.begin(), ranks.end(), 0);
    return std::make_unique<ThreadCommunicator>(std::move(office), 0, std::move(ranks), rank,
                                                std::move(name), std::move(instruments));
}

MessageKey ThreadCommunicator::collective_key(int source, std::uint64_t sequence) const {
    return {context_, world_rank(source), true, 0, sequence};
}

std::string ThreadCommunicator::what(std::string_view label) const {
    return fmt::format("'{}' on communicator {}", label, name());
}

void ThreadCommunicator::do_barrier(std::string_view label) {
    const std::vector<std::int64_t> nothing(index(size()));
    do_all_gather_v(label, {}, {}, nothing);
}

void ThreadCommunicator::do_broadcast(std::string_view label, std::span<std::byte> buffer,
                                      int root) {
    const std::uint64_t sequence = ++collectives_;
    if (rank() != root) {
        Pending pending(office_, world_rank(rank()), what(label));
        pending.expect(collective_key(root, sequence), buffer);
        pending.wait();
        return;
    }
    if (size() == 1) return;
    const Message message = message_of(buffer);
    for (int r = 0; r < size(); ++r) {
        if (r != root) office_->post(world_rank(r), collective_key(root, sequence), message);
    }
}

void ThreadCommunicator::do_all_gather_v(std::string_view label, std::span<const std::byte> send,
                                         std::span<std::byte> recv,
                                         std::span<const std::int64_t> counts) {
    do_start_all_gather_v(label, send, recv, counts)->wait();
}

std::unique_ptr<Request::State> ThreadCommunicator::do_start_all_gather_v(
    std::string_view label, std::span<const std::byte> send, std::span<std::byte> recv,
    std::span<const std::int64_t> counts) {
    const std::uint64_t sequence = ++collectives_;
    const Message message = size() > 1 ? message_of(send) : nullptr;
    auto pending = std::make_unique<Pending>(office_, world_rank(rank()), what(label));
    std::size_t offset = 0;
    for (int r = 0; r < size(); ++r) {
        const auto place = recv.subspan(offset, index(counts[index(r)]));
        offset += place.size();
        if (r == rank()) {
            copy_bytes(send, place);
        } else {
            office_->post(world_rank(r), collective_key(rank(), sequence), message);
            pending->expect(collective_key(r, sequence), place);
        }
    }
    return pending;
}

void ThreadCommunicator::do_gather_v(std::string_view label, std::span<const std::byte> send,
                                     std::span<std::byte> recv,
                                     std::span<const std::int64_t> counts, int root) {
    const std::uint64_t sequence = ++collectives_;
    if (rank() != root) {
        office_->post(world_rank(root), collective_key(rank(), sequence), message_of(send));
        return;
    }
    Pending pending(office_, world_rank(rank()), what(label));
    std::size_t offset = 0;
    for (int r = 0; r < size(); ++r) {
        const auto place = recv.subspan(offset, index(counts[index(r)]));
        offset += place.size();
        if (r == root) {
            copy_bytes(send, place);
        } else {
            pending.expect(collective_key(r, sequence), place);
        }
    }
    pending.wait();
}

std::unique_ptr<Request::State> ThreadCommunicator::do_start_all_to_all_v(
    std::string_view label, std::span<const std::byte> send,
    std::span<const std::int64_t> send_counts, std::span<std::byte> recv,
    std::span<const std::int64_t> recv_counts) {
    const std::uint64_t sequence = ++collectives_;
    auto pending = std::make_unique<Pending>(office_, world_rank(rank()), what(label));
    std::size_t send_offset = 0;
    std::size_t recv_offset = 0;
    for (int r = 0; r < size(); ++r) {
        const auto block = send.subspan(send_offset, index(send_counts[index(r)]));
        const auto place = recv.subspan(recv_offset, index(recv_counts[index(r)]));
        send_offset += block.size();
        recv_offset += place.size();
        if (r == rank()) {
            ensure(block.size() == place.size(), "{}: rank {} sends itself {} bytes and expects {}",
                   what(label), r, block.size(), place.size());
            copy_bytes(block, place);
        } else {
            office_->post(world_rank(r), collective_key(rank(), sequence), message_of(block));
            pending->expect(collective_key(r, sequence), place);
        }
    }
    return pending;
}

void ThreadCommunicator::do_all_reduce(std::string_view label, Reduction reduction,
                                       ReducedType type, std::span<std::byte> values) {
    if (size() == 1) return;
    std::vector<std::byte> all(values.size() * index(size()));
    const std::vector<std::int64_t> counts(index(size()), static_cast<std::int64_t>(values.size()));
    do_all_gather_v(label, values, all, counts);
    copy_bytes(std::span(all).first(values.size()), values);
    const auto fold = [&]<class T>(T) {
        for (std::size_t at = values.size(); at < all.size(); at += sizeof(T)) {
            T other;
            T total;
            std::byte* place = values.data() + at % values.size();
            std::memcpy(&other, all.data() + at, sizeof(T));
            std::memcpy(&total, place, sizeof(T));
            total = combine(static_cast<int>(reduction), total, other);
            std::memcpy(place, &total, sizeof(T));
        }
    };
    if (type == ReducedType::int64) {
        fold(std::int64_t{});
    } else {
        fold(UInt128{});
    }
}

std::unique_ptr<Request::State> ThreadCommunicator::do_start_send(std::string_view label,
                                                                  std::span<const std::byte> data,
                                                                  int to, Channel channel) {
    const std::uint64_t sequence = ++sent_[index(to)][index(channel.number)];
    office_->post(world_rank(to), {context_, world_rank(rank()), false, channel.number, sequence},
                  message_of(data));
    return std::make_unique<Pending>(office_, world_rank(rank()), what(label));
}

std::unique_ptr<Request::State> ThreadCommunicator::do_start_receive(std::string_view label,
                                                                     std::span<std::byte> data,
                                                                     int from, Channel channel) {
    auto pending = std::make_unique<Pending>(office_, world_rank(rank()), what(label));
    pending->expect({context_, world_rank(from), false, channel.number,
                     ++received_[index(from)][index(channel.number)]},
                    data);
    return pending;
}

std::unique_ptr<Communicator> ThreadCommunicator::do_split(int color, int key, std::string name) {
    struct Member {
        int color = 0;
        int key = 0;
        int rank = 0;
        int world_rank = 0;
        std::uint64_t context = 0;
    };
    Member mine{color, key, rank(), world_rank(rank()), 0};
    // Groups of one split share no rank, so one number serves them all.
    if (rank() == 0) mine.context = office_->new_context();
    std::vector<Member> all(index(size()));
    const std::vector<std::int64_t> counts(index(size()), std::int64_t{sizeof(Member)});
    do_all_gather_v("split", std::as_bytes(std::span(&mine, 1)),
                    std::as_writable_bytes(std::span(all)), counts);
    if (color < 0) return nullptr;

    std::vector<Member> group;
    for (const Member& member : all) {
        if (member.color == color) group.push_back(member);
    }
    std::sort(group.begin(), group.end(), [](const Member& a, const Member& b) {
        return std::tie(a.key, a.rank) < std::tie(b.key, b.rank);
    });
    std::vector<int> world_ranks;
    int position = 0;
    for (const Member& member : group) {
        if (member.rank == rank()) position = static_cast<int>(world_ranks.size());
        world_ranks.push_back(member.world_rank);
    }
    return std::make_unique<ThreadCommunicator>(office_, all.front().context,
                                                std::move(world_ranks), position, std::move(name),
                                                instruments());
}

}  // namespace rankwise::parallel
