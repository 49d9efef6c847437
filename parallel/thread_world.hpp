// N ranks as threads of one process: for tests, ThreadSanitizer, and `parallel.communicator =
// thread`.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "parallel/communicator.hpp"
#include "src/base/clock.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {

/// Thrown out of a communication of a rank that waits while another rank has failed; never the
/// cause itself.
struct RankReleased : EnvironmentError {
    using EnvironmentError::EnvironmentError;
};

class ThreadWorld {
  public:
    struct Options {
        bool check_collectives = false;
        std::shared_ptr<const Clock> clock = std::make_shared<SteadyClock>();
    };

    explicit ThreadWorld(int ranks) : ThreadWorld(ranks, Options{}) {}
    ThreadWorld(int ranks, Options options);
    ~ThreadWorld();
    ThreadWorld(const ThreadWorld&) = delete;
    ThreadWorld& operator=(const ThreadWorld&) = delete;

    [[nodiscard]] int size() const { return static_cast<int>(instruments_.size()); }

    /// Runs `body` on a thread for each rank, each with its communicator "world", and returns when
    /// all have returned. When one throws, those that wait in a communication get RankReleased, and
    /// run() rethrows what was thrown first. A rank that waits for one that has already returned
    /// gets InternalError. May be called again.
    void run(const std::function<void(Communicator&)>& body);

    /// What watched rank `rank`; may be read while run() is under way.
    [[nodiscard]] const Instruments& instruments(int rank) const {
        return instruments_[static_cast<std::size_t>(rank)];
    }

  private:
    std::vector<Instruments> instruments_;
};

}  // namespace rankwise::parallel
