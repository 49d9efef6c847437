#include "src/sums/tensor_parallel.hpp"

#include <algorithm>

#include "src/base/tree_sum.hpp"

namespace rankwise::sums {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;

/// What a link moves in the time that one more message takes: 10 us at 6 GB/s.
constexpr std::int64_t kLatencyBytes = std::int64_t{64} << 10U;

DeviceSpan<float> floats(Matrix matrix) {
    ensure(matrix.dense() && matrix.dtype == DType::f32, "a matrix to be moved is dense fp32");
    return {reinterpret_cast<float*>(matrix.handle), matrix.rows * matrix.cols};
}

DeviceSpan<const float> floats(ConstMatrix matrix) {
    ensure(matrix.dense() && matrix.dtype == DType::f32, "a matrix to be moved is dense fp32");
    return {reinterpret_cast<const float*>(matrix.handle), matrix.rows * matrix.cols};
}

void copy(Tools tools, ConstMatrix from, Matrix to) {
    tools.device.copy(cast_span<const std::byte>(floats(from)), cast_span<std::byte>(floats(to)),
                      tools.stream);
}

/// Adds up the members' blocks of `received` (those without terms have none) into the first of
/// them.
Matrix add_members(Tools tools, const RankTree& order, DeviceSpan<float> received,
                   std::int64_t rows, std::int64_t cols) {
    std::vector<Matrix> blocks;
    std::int64_t at = 0;
    for (const bool there : order.present) {
        blocks.push_back(there ? Matrix(received.subspan(at, rows * cols), rows, cols) : Matrix());
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

/// sum := what the receiver's rows become.
void meet(Tools tools, const Meeting& meeting, ConstMatrix before, Matrix sum) {
    if (!meeting.bias.empty()) {
        const std::vector<std::int64_t> first(static_cast<std::size_t>(sum.rows), 0);
        const kernels::Arena::Scope scope(tools.arena);
        const Matrix bias(tools.arena.take<float>(sum.rows * sum.cols), sum.rows, sum.cols);
        tools.device.gather_rows(
            {.from = ConstMatrix(meeting.bias, 1, sum.cols), .rows = first, .to = bias},
            tools.stream);
        tools.device.add({.from = bias, .to = sum}, tools.stream);
    }
    if (meeting.add) tools.device.add({.from = before, .to = sum}, tools.stream);
}

/// One all-to-all among the members. Member m is sent elements [offset, offset + send[m]) of `from`
/// when `from` holds a block for each, or the same block again.
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
             DeviceSpan<const float> from, DeviceSpan<float> to) {
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
DeviceSpan<const float> repeated(Tools tools, ConstMatrix matrix, int count) {
    if (count == 1) return floats(matrix);
    const std::int64_t size = matrix.rows * matrix.cols;
    const DeviceSpan<float> all = tools.arena.take<float>(size * count);
    for (int i = 0; i < count; ++i)
        copy(tools, matrix, Matrix(all.subspan(i * size, size), matrix.rows, matrix.cols));
    return all;
}

/// Every member gets this rank's block, and its own sends; blocks of the members in their order.
DeviceSpan<float> share(Tools tools, parallel::Communicator& axis, std::string_view label,
                        const RankTree& order, ConstMatrix mine,
                        std::span<const std::int64_t> sizes) {
    const DeviceSpan<float> received = tools.arena.take<float>(total_of(sizes));
    if (order.members.size() == axis.size()) {
        axis.all_gather_v(label, wire(tools, floats(mine)), wire(tools, received), sizes);
        return received;
    }
    Exchange exchange(axis, order);
    for (int member = 0; member < exchange.members(); ++member) {
        exchange.send(member) = sizes[static_cast<std::size_t>(exchange.self())];
        exchange.receive(member) = sizes[static_cast<std::size_t>(member)];
    }
    const bool sends = mine.rows * mine.cols > 0;
    exchange.run(tools, axis, label,
                 sends ? repeated(tools, mine, exchange.members()) : DeviceSpan<const float>(),
                 received);
    return received;
}

std::vector<Range> even_rows(std::int64_t rows, std::int64_t members) {
    std::vector<Range> all;
    for (std::int64_t member = 0; member < members; ++member)
        all.push_back(split(rows, members, member));
    return all;
}

std::vector<std::int64_t> sizes_of(std::span<const Range> rows, std::int64_t cols) {
    std::vector<std::int64_t> sizes;
    for (const Range range : rows) sizes.push_back(range.size() * cols);
    return sizes;
}

/// This rank's rows summed, in scratch memory; rows[m] are those of member m.
Matrix reduce_rows(Tools tools, parallel::Communicator& axis, std::string_view label,
                   const RankTree& order, ConstMatrix partial, std::span<const Range> rows,
                   std::int64_t cols) {
    Exchange exchange(axis, order);
    const std::int64_t mine = rows[static_cast<std::size_t>(exchange.self())].size();
    for (int member = 0; member < exchange.members(); ++member) {
        if (exchange.present(exchange.self()))
            exchange.send(member) = rows[static_cast<std::size_t>(member)].size() * cols;
        if (exchange.present(member)) exchange.receive(member) = mine * cols;
    }
    const DeviceSpan<float> received = tools.arena.take<float>(exchange.received());
    exchange.run(tools, axis, label,
                 exchange.present(exchange.self()) ? floats(partial) : DeviceSpan<const float>(),
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
    const std::int64_t size = to.rows * to.cols;
    const std::int64_t members = order.members.size();
    const auto self = axis.rank() - order.members.begin;
    if (goes_direct(route, members, size * size_of(DType::f32))) {
        std::vector<std::int64_t> sizes;
        for (const bool there : order.present) sizes.push_back(there ? size : 0);
        const bool here = order.present[static_cast<std::size_t>(self)];
        const DeviceSpan<float> received =
            share(tools, axis, label, order, here ? partial : ConstMatrix(), sizes);
        const Matrix sum = add_members(tools, order, received, to.rows, to.cols);
        meet(tools, meeting, to, sum);
        copy(tools, sum, to);
        return;
    }
    const std::vector<Range> rows = even_rows(to.rows, members);
    const Matrix sum = reduce_rows(tools, axis, label, order, partial, rows, to.cols);
    meet(tools, meeting, to.row_range(rows[static_cast<std::size_t>(self)]), sum);
    const std::vector<std::int64_t> sizes = sizes_of(rows, to.cols);
    const DeviceSpan<float> whole = share(tools, axis, label, order, sum, sizes);
    copy(tools, ConstMatrix(whole, to.rows, to.cols), to);
}

void reduce_scatter(Tools tools, parallel::Communicator& axis, std::string_view label,
                    const RankTree& order, ConstMatrix partial, std::span<const Range> rows,
                    Matrix mine, const Meeting& meeting) {
    check(axis, order);
    const kernels::Arena::Scope scope(tools.arena);
    const Matrix sum = reduce_rows(tools, axis, label, order, partial, rows, mine.cols);
    meet(tools, meeting, mine, sum);
    copy(tools, sum, mine);
}

void all_gather(Tools tools, parallel::Communicator& axis, std::string_view label,
                std::span<const Range> rows, ConstMatrix mine, Matrix whole) {
    gather_blocks(tools, axis, label, mine, sizes_of(rows, whole.cols), floats(whole));
}

void exchange_rows(Tools tools, parallel::Communicator& axis, std::string_view label,
                   ConstMatrix mine, std::span<const std::int64_t> sent,
                   std::span<const std::int64_t> from, Matrix received) {
    const auto elements = [&](std::span<const std::int64_t> rows) {
        std::vector<std::int64_t> counts;
        for (const std::int64_t count : rows) counts.push_back(count * received.cols);
        return counts;
    };
    axis.all_to_all_v(label, wire(tools, floats(mine)), elements(sent),
                      wire(tools, floats(received)), elements(from));
}

void gather_blocks(Tools tools, parallel::Communicator& axis, std::string_view label,
                   ConstMatrix mine, std::span<const std::int64_t> counts,
                   DeviceSpan<float> received) {
    axis.all_gather_v(label, wire(tools, floats(mine)), wire(tools, received), counts);
}

void gather_selected(Tools tools, parallel::Communicator& axis, std::string_view label,
                     std::span<const int> holder, ConstMatrix mine, Matrix whole) {
    const kernels::Arena::Scope scope(tools.arena);
    std::vector<std::int64_t> next(static_cast<std::size_t>(axis.size()), 0);
    for (const int rank : holder) ++next[static_cast<std::size_t>(rank)];
    std::vector<std::int64_t> sizes;
    std::int64_t begin = 0;
    for (std::int64_t& rows : next) {
        sizes.push_back(rows * whole.cols);
        begin += std::exchange(rows, begin);
    }
    const DeviceSpan<float> received = tools.arena.take<float>(whole.rows * whole.cols);
    gather_blocks(tools, axis, label, mine, sizes, received);
    std::vector<std::int64_t> from;
    for (const int rank : holder) from.push_back(next[static_cast<std::size_t>(rank)]++);
    tools.device.gather_rows(
        {.from = ConstMatrix(received, whole.rows, whole.cols), .rows = from, .to = whole},
        tools.stream);
}

}  // namespace rankwise::sums
