// Tells what each rank was doing when nothing moves any more.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/flight_recorder.hpp"
#include "src/base/clock.hpp"

namespace rankwise::parallel {

/// A stuck rank in a few bytes that can be sent.
struct RankState {
    int rank = 0;
    bool waiting = false;        ///< inside a communication
    std::uint64_t sequence = 0;  ///< communications begun so far
    char line[400] = {};         ///< describe() of it, cut to fit
};

/// Carries states between processes whose other threads are stuck. Never blocks.
class StateExchange {
  public:
    virtual ~StateExchange() = default;
    /// To rank 0; on rank 0 itself it arrives at once.
    virtual void publish(const RankState& state) = 0;
    /// What has arrived on rank 0 since the last call; empty elsewhere.
    [[nodiscard]] virtual std::vector<RankState> collect() = 0;
};

/// Who holds up the others: the ranks that are in no communication; if all are in one, those that
/// have begun the fewest. "behind: rank 2 (814 communications begun, in none now); ahead: ranks 0,
/// 1, 3 (815 begun)". Ranks of [0, size) without a state are named as still moving or gone.
[[nodiscard]] std::string describe_lag(const std::vector<RankState>& states, int size);

/// One a process. Watches the recorder of each rank of the process (several under ThreadWorld) and,
/// when one has not moved for timeout_s, reports this rank's phase, step, last communication and
/// for how long. Where states of several ranks are known it also says who is behind. Reports again
/// only after something has moved.
class Watchdog {
  public:
    struct Watched {
        int rank = 0;
        std::shared_ptr<const FlightRecorder> recorder;
    };
    struct Options {
        double timeout_s = 300.0;
        double end_after_s =
            0.0;  ///< so long after a report, with still nothing moving, the job ends (where it
                  ///< waits for another rank: four times as long); 0: never
        double poll_s = 1.0;  ///< how often the thread looks
        int world_size = 1;
        std::string identity;  ///< before a line when one rank is watched: "rank 5/16 host:pid"
        std::shared_ptr<const Clock> clock = std::make_shared<SteadyClock>();
        std::shared_ptr<StateExchange> exchange;  ///< may be null
        std::function<void(const std::string& line)>
            report;                     ///< to log and standard error; from the watchdog's thread
        std::function<void()> end_job;  ///< may be empty; from the watchdog's thread
    };

    Watchdog(std::vector<Watched> watched, Options options);
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    /// Starts the thread that calls poll(). Without it poll() may be called by hand.
    void start();
    void stop();
    /// Looks once.
    void poll();

  private:
    struct Seen {
        double change_s = -1.0;  ///< last_change_s that has been reported
        double reported_s = 0.0;
    };
    /// Seconds after a report until the job ends. A rank that waits for another has more: the other
    /// may compute, and ends the job itself if it does not move.
    [[nodiscard]] double patience(const FlightState& state) const;
    [[nodiscard]] std::string identity(int rank) const;
    void report_stall(int rank, const FlightState& state, double now_s);
    void keep(const RankState& state, double now_s);
    void report_lag(double now_s);

    std::vector<Watched> watched_;
    Options options_;
    std::vector<Seen> seen_;
    std::vector<std::pair<double, RankState>> states_;  // with the time they came
    double lag_due_s_ = -1.0;                           // below zero: nothing to report
    bool ended_ = false;

    std::mutex mutex_;
    std::condition_variable wake_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace rankwise::parallel
