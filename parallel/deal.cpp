#include "parallel/deal.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "src/base/error.hpp"

namespace rankwise::parallel {

namespace {

/// A heap of (amount, rank): the largest amount on top, of equal ones the lowest rank.
class Largest {
  public:
    void push(std::int64_t amount, int rank) {
        heap_.emplace_back(amount, -rank);
        std::push_heap(heap_.begin(), heap_.end());
    }
    [[nodiscard]] bool empty() const { return heap_.empty(); }
    std::pair<std::int64_t, int> pop() {
        std::pop_heap(heap_.begin(), heap_.end());
        const auto [amount, rank] = heap_.back();
        heap_.pop_back();
        return {amount, -rank};
    }

  private:
    std::vector<std::pair<std::int64_t, int>> heap_;
};

/// How many of `count` items of `width` slots each rank gets: one after the other to the rank with
/// most free slots.
std::vector<std::int64_t> quotas(std::span<const std::int64_t> free, std::int64_t count,
                                 std::int64_t width) {
    Largest ranks;
    for (std::size_t r = 0; r < free.size(); ++r) {
        if (free[r] >= width) ranks.push(free[r], static_cast<int>(r));
    }
    std::vector<std::int64_t> quota(free.size());
    for (; count > 0 && !ranks.empty(); --count) {
        const auto [left, rank] = ranks.pop();
        ++quota[static_cast<std::size_t>(rank)];
        if (left - width >= width) ranks.push(left - width, rank);
    }
    return quota;
}

}  // namespace

Dealer::Dealer(std::vector<WorkItem> items, std::int64_t width)
    : items_(std::move(items)), width_(width) {
    ensure(width >= 1, "an item takes at least one slot, found width {}", width);
    std::sort(items_.begin(), items_.end(), [](const WorkItem& a, const WorkItem& b) {
        return std::tuple(-a.expected_length, a.prompt, a.sample) <
               std::tuple(-b.expected_length, b.prompt, b.sample);
    });
}

std::vector<Dealt> Dealer::deal(std::span<const std::int64_t> free) {
    std::vector<std::int64_t> quota = quotas(free, waiting(), width_);
    std::int64_t count = 0;
    Largest ranks;
    for (std::size_t r = 0; r < quota.size(); ++r) {
        count += quota[r];
        if (quota[r] > 0) ranks.push(quota[r], static_cast<int>(r));
    }
    std::vector<Dealt> dealt;
    dealt.reserve(static_cast<std::size_t>(count));
    for (; count > 0; --count) {
        const WorkItem& item = items_[next_++];
        const auto home = home_.find(item.prompt);
        int rank = home == home_.end() ? -1 : home->second;
        if (rank < 0 || quota[static_cast<std::size_t>(rank)] == 0) {
            // Entries of the heap may be old: the quota has gone down since.
            while (true) {
                const auto [left, candidate] = ranks.pop();
                const std::int64_t now = quota[static_cast<std::size_t>(candidate)];
                if (now == left) {
                    rank = candidate;
                    break;
                }
                if (now > 0) ranks.push(now, candidate);
            }
            if (quota[static_cast<std::size_t>(rank)] > 1) {
                ranks.push(quota[static_cast<std::size_t>(rank)] - 1, rank);
            }
        }
        --quota[static_cast<std::size_t>(rank)];
        home_[item.prompt] = rank;
        dealt.push_back({item, rank});
    }
    return dealt;
}

}  // namespace rankwise::parallel
