#include "src/sums/tensor_parallel.hpp"

#include <algorithm>

#include "src/base/tree_sum.hpp"

namespace rankwise::sums {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;

/// What a link moves in the time that one more message takes: 10 us at 6 GB/s.
constexpr std::int64_t kLatencyBytes = std::int64_t{64} << 10U;

/// Bytes of fp32 partial sums.
DeviceSpan<const std::byte> bytes_of_sums(ConstMatrix matrix) {
    ensure(matrix.dtype == DType::f32, "partial sums are {}, expected F32", name_of(matrix.dtype));
    return bytes_of(matrix);
}

/// Adds up the members' blocks of `received` (those without terms have none) into the first of
/// them.
Matrix add_members(Tools tools, const RankTree& order, DeviceSpan<std::byte> received,
                   std::int64_t rows, std::int64_t cols) {
    const auto sums = cast_span<float>(received);
    std::vector<Matrix> blocks;
    std::int64_t at = 0;
    for (const bool there : order.present) {
        blocks.push_back(there ? Matrix(sums.subspan(at, rows * cols), rows, cols) : Matrix());
        if (there) at += rows * cols;
    }
    const auto block = [&](int member) { return blocks[static_cast<std::size_t>(member)]; };
    const int total = tree_sum(
        order.tree,
        [&](int member) { return bool{order.present[static_cast<std::size_t>(member)]}; },
        [&](int to, int from) {
            tools.device.add({.from = block(from), .to = block(to)}, tools.stream);
        });
    ensure(total >= 0, "a sum over the tensor axis without any terms");
    return block(total);
}

/// `to` becomes what the sum of the receiver's rows makes of it; `sum` is overwritten.
void meet(Tools tools, const Meeting& meeting, Matrix sum, Matrix to) {
    if (!meeting.bias.empty()) {
        const std::vector<std::int64_t> first(static_cast<std::size_t>(sum.rows), 0);
        const kernels::Arena::Scope scope(tools.arena);
        const Matrix bias(tools.arena.take<float>(sum.rows * sum.cols), sum.rows, sum.cols);
        tools.device.gather_rows(
            {.from = ConstMatrix(meeting.bias, 1, sum.cols), .rows = first, .to = bias},
            tools.stream);
        tools.device.add({.from = bias, .to = sum}, tools.stream);
    }
    if (meeting.add) {
        tools.device.add({.from = sum, .to = to}, tools.stream);
    } else {
        tools.device.round({.from = sum, .to = to}, tools.stream);
    }
}

/// One all-to-all among the members. Member m is sent bytes [offset, offset + send[m]) of `from`,
/// which holds a block for each.
class Exchange {
  public:
    Exchange(parallel::Communicator& axis, const RankTree& order)
        : order_(order),
          self_(axis.rank() - narrow<int>(order.members.begin)),
          send_(static_cast<std::size_t>(axis.size()), 0),
          receive_(static_cast<std::size_t>(axis.size()), 0) {}

    [[nodiscard]] int self() const { return self_; }
    [[nodiscard]] int members() const { return narrow<int>(order_.members.size()); }
    [[nodiscard]] bool present(int member) const {
        return order_.present[static_cast<std::size_t>(member)];
    }
    std::int64_t& send(int member) { return send_[rank(member)]; }
    std::int64_t& receive(int member) { return receive_[rank(member)]; }
    [[nodiscard]] std::int64_t received() const { return total_of(receive_); }
    void run(Tools tools, parallel::Communicator& axis, std::string_view label,
             DeviceSpan<const std::byte> from, DeviceSpan<std::byte> to) {
        axis.all_to_all_v(label, wire(tools, from), send_, wire(tools, to), receive_);
    }

  private:
    [[nodiscard]] std::size_t rank(int member) const {
        return static_cast<std::size_t>(order_.members.begin + member);
    }
    const RankTree& order_;
    int self_;
    std::vector<std::int64_t> send_;
    std::vector<std::int64_t> receive_;
};

void check(const parallel::Communicator& axis, const RankTree& order) {
    ensure(order.members.contains(axis.rank()) && order.members.end <= axis.size() &&
               std::ssize(order.present) == order.members.size() &&
               order.tree.leaves() == order.members.size(),
           "a tree of {} members, {} of them told apart, over ranks {} to {} of {}",
           order.tree.leaves(), order.present.size(), order.members.begin, order.members.end,
           axis.size());
}

/// `count` copies of a matrix, one after another.
DeviceSpan<const std::byte> repeated(Tools tools, DeviceSpan<const std::byte> matrix, int count) {
    if (count == 1) return matrix;
    const std::int64_t size = matrix.size();
    const DeviceSpan<std::byte> all = tools.arena.take<std::byte>(size * count);
    for (int i = 0; i < count; ++i)
        tools.device.copy(matrix, all.subspan(i * size, size), tools.stream);
    return all;
}

/// Every member gets this rank's block, and its own sends; blocks of the members in their order,
/// of so many bytes.
DeviceSpan<std::byte> share(Tools tools, parallel::Communicator& axis, std::string_view label,
                            const RankTree& order, DeviceSpan<const std::byte> mine,
                            std::span<const std::int64_t> sizes) {
    const DeviceSpan<std::byte> received = tools.arena.take<std::byte>(total_of(sizes));
    if (order.members.size() == axis.size()) {
        axis.all_gather_v(label, wire(tools, mine), wire(tools, received), sizes);
        return received;
    }
    Exchange exchange(axis, order);
    for (int member = 0; member < exchange.members(); ++member) {
        exchange.send(member) = sizes[static_cast<std::size_t>(exchange.self())];
        exchange.receive(member) = sizes[static_cast<std::size_t>(member)];
    }
    exchange.run(tools, axis, label,
                 mine.empty() ? mine : repeated(tools, mine, exchange.members()), received);
    return received;
}

std::vector<Range> even_rows(std::int64_t rows, std::int64_t members) {
    std::vector<Range> all;
    for (std::int64_t member = 0; member < members; ++member)
        all.push_back(split(rows, members, member));
    return all;
}

/// Bytes of some rows of a matrix.
std::vector<std::int64_t> sizes_of(std::span<const Range> rows, const ConstMatrix& matrix) {
    std::vector<std::int64_t> sizes;
    for (const Range range : rows)
        sizes.push_back(range.size() * matrix.cols * size_of(matrix.dtype));
    return sizes;
}

/// This rank's rows summed, in scratch memory; rows[m] are those of member m.
Matrix reduce_rows(Tools tools, parallel::Communicator& axis, std::string_view label,
                   const RankTree& order, ConstMatrix partial, std::span<const Range> rows,
                   std::int64_t cols) {
    Exchange exchange(axis, order);
    const std::int64_t mine = rows[static_cast<std::size_t>(exchange.self())].size();
    const std::int64_t row_bytes = cols * size_of(DType::f32);
    for (int member = 0; member < exchange.members(); ++member) {
        if (exchange.present(exchange.self()))
            exchange.send(member) = rows[static_cast<std::size_t>(member)].size() * row_bytes;
        if (exchange.present(member)) exchange.receive(member) = mine * row_bytes;
    }
    const DeviceSpan<std::byte> received = tools.arena.take<std::byte>(exchange.received());
    exchange.run(
        tools, axis, label,
        exchange.present(exchange.self()) ? bytes_of_sums(partial) : DeviceSpan<const std::byte>(),
        received);
    return add_members(tools, order, received, mine, cols);
}

bool goes_direct(Route route, std::int64_t members, std::int64_t bytes) {
    if (route != Route::automatic) return route == Route::direct;
    // Direct sends (n - 1) s once, by rows 2 (n - 1) s / n in two turns: the difference is worth a
    // turn up to here. Two ranks send the same.
    return bytes * (members - 1) * (members - 2) / members <= kLatencyBytes;
}

}  // namespace

RankTree RankTree::all(const ReductionTree& tree, int degree) {
    return {
        tree.above(degree), {0, degree}, std::vector<bool>(static_cast<std::size_t>(degree), true)};
}

void all_reduce(Tools tools, parallel::Communicator& axis, std::string_view label,
                const RankTree& order, ConstMatrix partial, Matrix to, const Meeting& meeting,
                Route route) {
    check(axis, order);
    const kernels::Arena::Scope scope(tools.arena);
    const std::int64_t size = to.rows * to.cols * size_of(DType::f32);
    const std::int64_t members = order.members.size();
    const auto self = axis.rank() - order.members.begin;
    if (goes_direct(route, members, size)) {
        std::vector<std::int64_t> sizes;
        for (const bool there : order.present) sizes.push_back(there ? size : 0);
        const bool here = order.present[static_cast<std::size_t>(self)];
        const DeviceSpan<std::byte> received =
            share(tools, axis, label, order,
                  here ? bytes_of_sums(partial) : DeviceSpan<const std::byte>(), sizes);
        meet(tools, meeting, add_members(tools, order, received, to.rows, to.cols), to);
        return;
    }
    const std::vector<Range> rows = even_rows(to.rows, members);
    const Matrix sum = reduce_rows(tools, axis, label, order, partial, rows, to.cols);
    const Matrix own = to.row_range(rows[static_cast<std::size_t>(self)]);
    meet(tools, meeting, sum, own);
    const DeviceSpan<std::byte> whole =
        share(tools, axis, label, order, bytes_of(own), sizes_of(rows, to));
    tools.device.copy(whole, bytes_of(to), tools.stream);
}

void reduce_scatter(Tools tools, parallel::Communicator& axis, std::string_view label,
                    const RankTree& order, ConstMatrix partial, std::span<const Range> rows,
                    Matrix mine, const Meeting& meeting) {
    check(axis, order);
    const kernels::Arena::Scope scope(tools.arena);
    const Matrix sum = reduce_rows(tools, axis, label, order, partial, rows, mine.cols);
    meet(tools, meeting, sum, mine);
}

void all_gather(Tools tools, parallel::Communicator& axis, std::string_view label,
                std::span<const Range> rows, ConstMatrix mine, Matrix whole) {
    axis.all_gather_v(label, wire(tools, bytes_of(mine)), wire(tools, bytes_of(whole)),
                      sizes_of(rows, whole));
}

void exchange_rows(Tools tools, parallel::Communicator& axis, std::string_view label,
                   ConstMatrix mine, std::span<const std::int64_t> sent,
                   std::span<const std::int64_t> from, Matrix received) {
    const auto bytes = [&](std::span<const std::int64_t> rows) {
        std::vector<std::int64_t> counts;
        for (const std::int64_t count : rows)
            counts.push_back(count * received.cols * size_of(received.dtype));
        return counts;
    };
    axis.all_to_all_v(label, wire(tools, bytes_of(mine)), bytes(sent),
                      wire(tools, bytes_of(received)), bytes(from));
}

void gather_blocks(Tools tools, parallel::Communicator& axis, std::string_view label,
                   ConstMatrix mine, std::span<const std::int64_t> counts,
                   DeviceSpan<float> received) {
    axis.all_gather_v(label, wire(tools, cast_span<const float>(bytes_of_sums(mine))),
                      wire(tools, received), counts);
}

void gather_selected(Tools tools, parallel::Communicator& axis, std::string_view label,
                     std::span<const int> holder, ConstMatrix mine, Matrix whole) {
    const kernels::Arena::Scope scope(tools.arena);
    std::vector<std::int64_t> next(static_cast<std::size_t>(axis.size()), 0);
    for (const int rank : holder) ++next[static_cast<std::size_t>(rank)];
    std::vector<std::int64_t> sizes;
    std::int64_t begin = 0;
    for (std::int64_t& rows : next) {
        sizes.push_back(rows * whole.cols * size_of(whole.dtype));
        begin += std::exchange(rows, begin);
    }
    const Matrix received(tools.arena.take<std::byte>(bytes_of(whole).size()).handle(), whole.dtype,
                          whole.rows, whole.cols, whole.cols);
    axis.all_gather_v(label, wire(tools, bytes_of(mine)), wire(tools, bytes_of(received)), sizes);
    std::vector<std::int64_t> from;
    for (const int rank : holder) from.push_back(next[static_cast<std::size_t>(rank)]++);
    tools.device.gather_rows({.from = received, .rows = from, .to = whole}, tools.stream);
}

}  // namespace rankwise::sums
