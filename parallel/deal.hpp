// Who generates which prompt: dealt without a server. Every data rank calls this with the same
// gathered numbers and comes to the same answer; what is dealt where can change no result
// (NUMERICS), only the time.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace rankwise::parallel {

/// A prompt with its group of samples, or a single sample.
struct WorkItem {
    std::int64_t prompt =
        0;  ///< items of one prompt are kept on one rank where that costs no balance
    std::int64_t sample = 0;           ///< 0 where an item is a whole group
    std::int64_t expected_length = 0;  ///< tokens to decode; equal numbers where nothing is known
    friend bool operator==(const WorkItem&, const WorkItem&) = default;
};

struct Dealt {
    WorkItem item;
    int rank = 0;
    friend bool operator==(const Dealt&, const Dealt&) = default;
};

/// The waiting items of a phase, the same on every rank; only deal() changes it.
class Dealer {
  public:
    /// @param width  slots that an item takes on one rank: 1 for single samples, the group size for
    /// whole groups. Items are dealt longest expected first; equal ones by (prompt, sample).
    /// @throws InternalError if width < 1.
    Dealer(std::vector<WorkItem> items, std::int64_t width);

    [[nodiscard]] std::int64_t waiting() const {
        return static_cast<std::int64_t>(items_.size() - next_);
    }

    /// @param free  free slots of each rank, as gathered.
    /// @return in order of dealing: as many items as fit, so spread that the slots left free are as
    /// even as can be (ties: the lower rank).
    [[nodiscard]] std::vector<Dealt> deal(std::span<const std::int64_t> free);

  private:
    std::vector<WorkItem> items_;
    std::size_t next_ = 0;
    std::int64_t width_;
    std::unordered_map<std::int64_t, int> home_;  // prompt -> rank that got its latest item
};

}  // namespace rankwise::parallel
