// When a run stops before its end: signals and the wall-time limit.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "parallel/communicator.hpp"
#include "src/base/clock.hpp"

namespace rankwise::app {

/// Why a run stops; ordered so that of several reasons the largest counts.
enum class StopReason : std::int64_t { none, time_limit, usr1, interrupt, terminate };

/// "SIGUSR1", "the time limit", …
[[nodiscard]] std::string_view name_of(StopReason reason);

/// Makes USR1, TERM and INT set a flag instead of ending the process, from now on. A second INT
/// within two seconds ends the process at once with code 130. System calls go on after a signal.
/// A write beyond the limit of a file's size (XFSZ) fails like others.
void install_stop_signals();
/// The signal that came since install_stop_signals(), if one did.
[[nodiscard]] StopReason pending_stop_signal();
/// Back to the system's defaults, with the flag cleared.
void remove_stop_signals();

/// Asked at step boundaries, and by rollout between decode steps, whether to stop.
class StopConditions {
  public:
    /// @param time_limit_s  from now on; 0: none
    StopConditions(double time_limit_s, std::shared_ptr<const Clock> clock);

    /// What this rank knows. Cheap; safe from several threads.
    [[nodiscard]] StopReason local() const;
    /// Collective: the largest reason that any rank has, the same on all ranks.
    [[nodiscard]] StopReason agreed(parallel::Communicator& world) const;
    /// Seconds until the limit; infinity without one.
    [[nodiscard]] double seconds_left() const;

  private:
    std::shared_ptr<const Clock> clock_;
    double end_s_;
};

}  // namespace rankwise::app
