#include "parallel/mirror_communicator.hpp"

#include <cstring>

#include "src/base/checked.hpp"
#include "src/base/error.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::parallel {
namespace {

class Done final : public Request::State {
  public:
    bool test() override { return true; }
    void wait() override {}
};

class MirrorCommunicator final : public Communicator {
  public:
    MirrorCommunicator(const MeshShape& shape, const Coordinates& at, std::string name, int rank,
                       int size, IsAbsent absent, Instruments instruments)
        : Communicator(std::move(name), rank, size, std::move(instruments)),
          shape_(shape),
          at_(at),
          absent_(std::move(absent)) {}

  private:
    void move(std::span<const std::byte> from, std::span<std::byte> to) const {
        const std::size_t bytes = std::min(from.size(), to.size());
        if (bytes == 0 || absent_(from.data()) || absent_(to.data())) return;
        std::memmove(to.data(), from.data(), bytes);
    }
    void fill_blocks(std::span<const std::byte> send, std::span<std::byte> recv,
                     std::span<const std::int64_t> counts) const {
        std::size_t at = 0;
        for (const std::int64_t count : counts) {
            move(send, recv.subspan(at, static_cast<std::size_t>(count)));
            at += static_cast<std::size_t>(count);
        }
    }

    void do_barrier(std::string_view /*label*/) override {}
    void do_broadcast(std::string_view /*label*/, std::span<std::byte> /*buffer*/,
                      int /*root*/) override {}
    void do_all_gather_v(std::string_view /*label*/, std::span<const std::byte> send,
                         std::span<std::byte> recv, std::span<const std::int64_t> counts) override {
        fill_blocks(send, recv, counts);
    }
    void do_gather_v(std::string_view /*label*/, std::span<const std::byte> send,
                     std::span<std::byte> recv, std::span<const std::int64_t> counts,
                     int root) override {
        if (rank() == root) fill_blocks(send, recv, counts);
    }
    void do_all_reduce(std::string_view /*label*/, Reduction reduction, ReducedType type,
                       std::span<std::byte> values) override {
        if (reduction != Reduction::sum || absent_(values.data())) return;
        if (type == ReducedType::int64) {
            multiply<std::int64_t>(values);
        } else {
            multiply<UInt128>(values);
        }
    }
    template <class T>
    void multiply(std::span<std::byte> values) const {
        for (std::size_t at = 0; at + sizeof(T) <= values.size(); at += sizeof(T)) {
            T one{};
            std::memcpy(&one, values.data() + at, sizeof(T));
            T sum{};
            for (int rank = 0; rank < size(); ++rank) sum += one;
            std::memcpy(values.data() + at, &sum, sizeof(T));
        }
    }
    std::unique_ptr<Request::State> do_start_all_gather_v(
        std::string_view label, std::span<const std::byte> send, std::span<std::byte> recv,
        std::span<const std::int64_t> counts) override {
        do_all_gather_v(label, send, recv, counts);
        return std::make_unique<Done>();
    }
    std::unique_ptr<Request::State> do_start_all_to_all_v(
        std::string_view /*label*/, std::span<const std::byte> send,
        std::span<const std::int64_t> send_counts, std::span<std::byte> recv,
        std::span<const std::int64_t> recv_counts) override {
        std::size_t own = 0;
        for (int rank = 0; rank < this->rank(); ++rank)
            own += static_cast<std::size_t>(send_counts[static_cast<std::size_t>(rank)]);
        const auto mine = static_cast<std::size_t>(send_counts[static_cast<std::size_t>(rank())]);
        fill_blocks(send.subspan(own, mine), recv, recv_counts);
        return std::make_unique<Done>();
    }
    std::unique_ptr<Request::State> do_start_send(std::string_view /*label*/,
                                                  std::span<const std::byte> /*data*/, int /*to*/,
                                                  Channel /*channel*/) override {
        return std::make_unique<Done>();
    }
    std::unique_ptr<Request::State> do_start_receive(std::string_view /*label*/,
                                                     std::span<std::byte> /*data*/, int /*from*/,
                                                     Channel /*channel*/) override {
        return std::make_unique<Done>();
    }
    std::unique_ptr<Communicator> do_split(int /*color*/, int /*key*/, std::string name) override {
        const auto axis = [&](int rank, int size) {
            return std::make_unique<MirrorCommunicator>(shape_, at_, name, rank, size, absent_,
                                                        instruments());
        };
        if (name == name_of(Axis::data)) return axis(at_.data, shape_.data);
        if (name == name_of(Axis::pipeline)) return axis(at_.pipeline, shape_.pipeline);
        if (name == name_of(Axis::tensor)) return axis(at_.tensor, shape_.tensor);
        ensure(name == name_of(Axis::expert), "a mirror has no ranks named {}", name);
        return axis(at_.expert, shape_.expert);
    }

    MeshShape shape_;
    Coordinates at_;
    IsAbsent absent_;
};

}  // namespace

std::unique_ptr<Communicator> make_mirror_world(const MeshShape& shape, int rank, IsAbsent absent,
                                                Instruments instruments) {
    return std::make_unique<MirrorCommunicator>(shape, coordinates_of(shape, rank), "world", rank,
                                                narrow<int>(shape.ranks()), std::move(absent),
                                                std::move(instruments));
}

}  // namespace rankwise::parallel
