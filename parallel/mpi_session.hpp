// MPI from start to end of the program.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "parallel/communicator.hpp"
#include "parallel/watchdog.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {

/// Starts MPI (with calls from several threads allowed) and ends it. Lives in main, outside the
/// `try`: MPI_Finalize on a failing rank would hang the job for ever, so an error calls abort().
/// Outlives every communicator made from it.
class MpiSession {
  public:
    /// Bytes of one MPI message at most; longer data travel as several.
    static constexpr std::int64_t kPieceBytes = std::int64_t{1} << 30;

    /// @throws EnvironmentError if MPI cannot start or refuses calls from several threads.
    MpiSession(int& argc, char**& argv);
    /// Finalises. If an exception is on its way through here, aborts the job with
    /// ExitCode::internal instead.
    ~MpiSession();
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;

    [[nodiscard]] int rank() const { return rank_; }
    [[nodiscard]] int size() const { return size_; }
    [[nodiscard]] const std::string& host() const { return host_; }
    /// Ranks on this node, this one among them.
    [[nodiscard]] int ranks_here() const { return ranks_here_; }
    [[nodiscard]] std::int64_t pid() const { return pid_; }
    /// "rank 5/16 host:pid", as it stands before an error.
    [[nodiscard]] std::string identity() const;

    /// Collective. The communicator "world", with an MPI context of its own.
    [[nodiscard]] std::unique_ptr<Communicator> world(Instruments instruments,
                                                      std::int64_t piece_bytes = kPieceBytes);

    /// Collective. For a watchdog: carries the ranks' states to rank 0 while their other threads
    /// are stuck.
    [[nodiscard]] std::unique_ptr<StateExchange> state_exchange();

    /// Ends all ranks at once; the job's exit code is `code`.
    [[noreturn]] void abort(ExitCode code) const;

  private:
    int rank_ = 0;
    int size_ = 1;
    int ranks_here_ = 1;
    std::string host_;
    std::int64_t pid_ = 0;
};

}  // namespace rankwise::parallel
