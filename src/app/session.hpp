// What a command that runs on every rank is given: its ranks, its instruments, and how all of them
// stop together.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/agree.hpp"
#include "parallel/communicator.hpp"
#include "parallel/mpi_session.hpp"
#include "parallel/watchdog.hpp"
#include "src/base/log.hpp"

namespace rankwise::app {

/// Thrown on every rank alike when start-up found problems. main prints the list once, on rank 0,
/// and every rank leaves in order with the code.
class StartRefused : public Error {
  public:
    StartRefused(ExitCode code, std::string merged)
        : Error(code, merged), merged_(std::move(merged)) {}
    [[nodiscard]] const std::string& merged() const { return merged_; }

  private:
    std::string merged_;  ///< the whole list on rank 0; empty elsewhere
};

/// The ranks of this run. Made by main; tests make one over any communicator.
class Session {
  public:
    /// @param mpi  null without MPI (a test's ThreadWorld)
    Session(parallel::Communicator& world, parallel::MpiSession* mpi) : world_(world), mpi_(mpi) {}
    /// A rank that is a thread. @param ranks  the recorders of all ranks of this process
    Session(parallel::Communicator& world, std::vector<parallel::Watchdog::Watched> ranks)
        : world_(world), ranks_(std::move(ranks)) {}

    [[nodiscard]] parallel::Communicator& world() const { return world_; }
    [[nodiscard]] int rank() const { return world_.rank(); }
    [[nodiscard]] int size() const { return world_.size(); }
    /// "rank 5/16 host:pid", as it stands before errors.
    [[nodiscard]] std::string identity() const;
    /// Ranks that share this one's memory: those of its node, or of its process.
    [[nodiscard]] int ranks_here() const { return mpi_ ? mpi_->ranks_here() : size(); }
    /// Whether this process is one rank.
    [[nodiscard]] bool owns_process() const { return mpi_ != nullptr || size() == 1; }
    [[nodiscard]] std::shared_ptr<parallel::FlightRecorder> recorder() const {
        return world_.instruments().recorder;
    }

    /// Whose problem it is that a check finds: of the ranks that found it, which are then named, or
    /// of the run (one rank looked for all, or each looked at a part).
    enum class Concerns : std::uint8_t { ranks, run };

    /// Where the program's last word goes, beside standard error: this rank's log, once it is open.
    void set_log(const Log& log) { log_ = log; }
    [[nodiscard]] const Log& log() const { return log_; }

    /// Collective: a step of start-up. Runs `check` on every rank and merges what it throws
    /// (Problems one by one); if any rank has a problem all ranks throw StartRefused.
    void start_together(const std::function<void()>& check, Concerns concerns = Concerns::ranks);
    /// The same of a check that rank 0 does for all.
    void start_on_main(const std::function<void()>& check);
    /// Collective: start-up ends unless every rank has the same bytes. `what` is "recipe" or
    /// "program"; `advice` says what to do. Of texts of several lines, those that differ are named.
    void require_same(std::string_view what, std::string_view value, std::string_view advice);

    /// Collective: a watchdog that reports to `report` (and ends the job with ExitCode::environment
    /// when nothing moves for end_after_s more; 0: never). Stops when it is destroyed. One watches
    /// all ranks of a process: null on the others.
    [[nodiscard]] std::unique_ptr<parallel::Watchdog> start_watchdog(
        double timeout_s, double end_after_s, std::function<void(const std::string&)> report);

  private:
    parallel::Communicator& world_;
    parallel::MpiSession* mpi_ = nullptr;
    std::vector<parallel::Watchdog::Watched> ranks_;
    Log log_;
};

/// "3 problems:\n  …" as start-up prints them; a list of one stands alone. Who met a problem is
/// said unless all of `ranks` did, or `ranks` is 0.
[[nodiscard]] std::string merged_text(const parallel::Agreement& agreement, int ranks);

}  // namespace rankwise::app
