// What one rank did last: a ring of its latest communications, with the phase and step it is in.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/op.hpp"
#include "src/base/clock.hpp"

namespace rankwise::parallel {

/// One communication of this rank.
struct FlightEntry {
    std::uint64_t sequence = 0;  ///< 1 for the first call of this rank, on whichever communicator
    Op op = Op::barrier;
    std::string communicator;
    std::string label;
    std::int64_t bytes =
        0;  ///< payload of this rank: the larger of what it sends and what it receives
    double begin_s = 0.0;
    double end_s = -1.0;  ///< below zero: not finished
    std::string phase;
    std::int64_t step = 0;
    bool waiting = false;  ///< the rank can do nothing else until it is finished
    [[nodiscard]] bool finished() const { return end_s >= 0.0; }
};

/// All that a watchdog wants to know at one moment.
struct FlightState {
    std::string phase;
    std::int64_t step = 0;
    std::uint64_t sequence = 0;  ///< calls begun so far
    double last_change_s = 0.0;  ///< when something last moved
    double now_s = 0.0;          ///< when this was taken
    std::vector<FlightEntry>
        open;  ///< begun and not finished, oldest first, as far as the ring reaches
    std::vector<FlightEntry> latest;  ///< the newest entry, if there is one
};

/// Thread-safe: a rank writes, a watchdog reads. Any call but state() counts as something that
/// moves.
class FlightRecorder {
  public:
    static constexpr std::size_t kRing = 64;

    explicit FlightRecorder(std::shared_ptr<const Clock> clock = std::make_shared<SteadyClock>());

    /// The phase ("generate", "update", …) and step that this rank is in from now on.
    void set_phase(std::string_view phase, std::int64_t step);
    /// A long computation shows that it is alive.
    void beat();

    /// A communication begins; the returned ticket ends it. `waiting`: the rank does nothing else
    /// meanwhile.
    std::uint64_t begin(Op op, std::string_view communicator, std::string_view label,
                        std::int64_t bytes, bool waiting);
    /// From now on the rank waits for one that was started.
    void wait(std::uint64_t ticket);
    void end(std::uint64_t ticket);

    [[nodiscard]] FlightState state() const;
    /// The ring, oldest first.
    [[nodiscard]] std::vector<FlightEntry> entries() const;

  private:
    [[nodiscard]] std::vector<FlightEntry> in_order() const;

    std::shared_ptr<const Clock> clock_;
    mutable std::mutex mutex_;
    std::vector<FlightEntry> ring_;
    std::uint64_t sequence_ = 0;
    std::string phase_ = "start";
    std::int64_t step_ = 0;
    double last_change_s_ = 0.0;
};

/// "phase=update step=1203: no progress for 60.0 s; in all_gather 'weights:3' on data (#812, 4.0
/// MiB) for 60.0 s".
[[nodiscard]] std::string describe(const FlightState& state);

}  // namespace rankwise::parallel
