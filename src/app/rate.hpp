// How fast steps go by.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <utility>

namespace rankwise::app {

/// Time per step over the latest steps, so that an estimate follows answers that grow longer.
class Rate {
  public:
    void begin(std::int64_t step, double now_s) { times_ = {{step, now_s}}; }
    void step(std::int64_t step, double now_s) {
        times_.emplace_back(step, now_s);
        if (times_.size() > kWindow) times_.pop_front();
    }
    /// Not a number before the first step.
    [[nodiscard]] double seconds_per_step() const {
        const std::int64_t steps = times_.empty() ? 0 : times_.back().first - times_.front().first;
        if (steps <= 0) return std::numeric_limits<double>::quiet_NaN();
        return (times_.back().second - times_.front().second) / static_cast<double>(steps);
    }
    /// From the last step until step `end` is done.
    [[nodiscard]] double seconds_to(std::int64_t end) const {
        if (times_.empty()) return std::numeric_limits<double>::quiet_NaN();
        return seconds_per_step() * static_cast<double>(end - times_.back().first);
    }

  private:
    static constexpr std::size_t kWindow = 30;
    std::deque<std::pair<std::int64_t, double>> times_;
};

}  // namespace rankwise::app
