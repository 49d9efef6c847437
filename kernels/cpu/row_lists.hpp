// Rows grouped by where they go.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rankwise::kernels::cpu {

/// For each of `places` places the indices i with place(i) equal to it, ascending. Memory is kept
/// for the next call.
class RowLists {
  public:
    template <class Place>
    void build(std::int64_t count, std::int64_t places, const Place& place) {
        begin_.assign(static_cast<std::size_t>(places) + 1, 0);
        rows_.resize(static_cast<std::size_t>(count));
        for (std::int64_t i = 0; i < count; ++i) ++begin_[static_cast<std::size_t>(place(i))];
        std::int64_t end = 0;
        for (std::int64_t& entry : begin_) entry = end += entry;  // ends of the places' lists
        for (std::int64_t i = count; i-- > 0;) {
            rows_[static_cast<std::size_t>(--begin_[static_cast<std::size_t>(place(i))])] = i;
        }
    }
    [[nodiscard]] std::span<const std::int64_t> at(std::int64_t place) const {
        const auto p = static_cast<std::size_t>(place);
        return {rows_.data() + begin_[p], static_cast<std::size_t>(begin_[p + 1] - begin_[p])};
    }

  private:
    std::vector<std::int64_t> begin_;
    std::vector<std::int64_t> rows_;
};

}  // namespace rankwise::kernels::cpu
