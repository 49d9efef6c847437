#include "parallel/watchdog.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

#include "parallel/agree.hpp"

namespace rankwise::parallel {

namespace {

bool is_waiting(const FlightState& state) {
    return std::any_of(state.open.begin(), state.open.end(),
                       [](const FlightEntry& entry) { return entry.waiting; });
}

std::vector<int> ranks_of(const std::vector<RankState>& states) {
    std::vector<int> ranks;
    for (const RankState& state : states) ranks.push_back(state.rank);
    std::sort(ranks.begin(), ranks.end());
    return ranks;
}

}  // namespace

std::string describe_lag(const std::vector<RankState>& states, int size) {
    if (states.empty()) return "no rank has reported";
    // Where some are in no communication they keep the rest waiting. How many each has begun says
    // nothing then: ranks of a pipeline or of different axes have other numbers of them.
    const bool busy = std::ranges::any_of(states, [](const RankState& s) { return !s.waiting; });
    std::uint64_t fewest = std::numeric_limits<std::uint64_t>::max();
    for (const RankState& state : states) {
        if (!busy || !state.waiting) fewest = std::min(fewest, state.sequence);
    }
    std::vector<RankState> last;
    std::vector<RankState> others;
    for (const RankState& state : states) {
        const bool behind = busy ? !state.waiting : state.sequence == fewest;
        (behind ? last : others).push_back(state);
    }
    std::uint64_t most = 0;
    bool ahead = true;
    for (const RankState& state : others) {
        most = std::max(most, state.sequence);
        ahead = ahead && state.sequence >= fewest;
    }
    std::string text;
    if (others.empty() && static_cast<int>(last.size()) == size && last.front().waiting) {
        text = fmt::format(
            "all {} ranks wait, each in its communication #{}: they wait for each other, or the "
            "network is stuck",
            size, fewest);
    } else {
        text = fmt::format("behind: {} ({} communications begun, {})",
                           to_string_ranks(ranks_of(last), size), fewest,
                           last.front().waiting ? "waiting in the last" : "in none now");
        if (!others.empty()) {
            text += fmt::format("; {}: {} ({} begun)", ahead ? "ahead" : "waiting",
                                to_string_ranks(ranks_of(others), size), most);
        }
    }
    std::vector<int> silent;
    const auto known = ranks_of(states);
    for (int r = 0; r < size; ++r) {
        if (!std::binary_search(known.begin(), known.end(), r)) silent.push_back(r);
    }
    if (!silent.empty()) {
        text += fmt::format("; no report from {}: still moving, or gone",
                            to_string_ranks(silent, size));
    }
    constexpr std::size_t kShown = 4;
    for (std::size_t i = 0; i < std::min(kShown, last.size()); ++i) {
        text += fmt::format("\n  rank {}: {}", last[i].rank, last[i].line);
    }
    return text;
}

Watchdog::Watchdog(std::vector<Watched> watched, Options options)
    : watched_(std::move(watched)), options_(std::move(options)), seen_(watched_.size()) {}

Watchdog::~Watchdog() {
    stop();
}

void Watchdog::start() {
    thread_ = std::thread([this] {
        std::unique_lock lock(mutex_);
        while (!stopping_) {
            wake_.wait_for(lock, std::chrono::duration<double>(options_.poll_s));
            if (stopping_) return;
            lock.unlock();
            poll();
            lock.lock();
        }
    });
}

void Watchdog::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void Watchdog::poll() {
    const double now = options_.clock->now_s();
    for (std::size_t i = 0; i < watched_.size(); ++i) {
        const FlightState state = watched_[i].recorder->state();
        if (now - state.last_change_s < options_.timeout_s) continue;
        if (seen_[i].change_s != state.last_change_s) {
            seen_[i] = {state.last_change_s, now};
            report_stall(watched_[i].rank, state, now);
        } else if (options_.end_after_s > 0.0 && options_.end_job && !ended_ &&
                   now - seen_[i].reported_s >= patience(state)) {
            ended_ = true;
            options_.report(
                fmt::format("[{}] still nothing moves {:.1f} s after the report: ending the job",
                            identity(watched_[i].rank), now - seen_[i].reported_s));
            options_.end_job();
        }
    }
    report_lag(now);
}

double Watchdog::patience(const FlightState& state) const {
    constexpr double kOfThoseThatWait = 4.0;
    return options_.end_after_s * (is_waiting(state) ? kOfThoseThatWait : 1.0);
}

std::string Watchdog::identity(int rank) const {
    if (watched_.size() == 1 && !options_.identity.empty()) return options_.identity;
    return fmt::format("rank {}/{}", rank, options_.world_size);
}

void Watchdog::report_stall(int rank, const FlightState& state, double now_s) {
    const std::string line = describe(state);
    options_.report(fmt::format("[{}] {}", identity(rank), line));
    RankState brief;
    brief.rank = rank;
    brief.waiting = is_waiting(state);
    brief.sequence = state.sequence;
    std::memcpy(brief.line, line.data(), std::min(line.size(), sizeof brief.line - 1));
    if (options_.exchange) {
        options_.exchange->publish(brief);
    } else {
        keep(brief, now_s);
    }
}

void Watchdog::keep(const RankState& state, double now_s) {
    std::erase_if(states_, [&](const auto& known) { return known.second.rank == state.rank; });
    states_.emplace_back(now_s, state);
    // Ranks stop one after the other; a little later all are known.
    if (lag_due_s_ < 0.0) {
        lag_due_s_ = now_s + std::max(2.0 * options_.poll_s, 0.1 * options_.timeout_s);
    }
}

void Watchdog::report_lag(double now_s) {
    if (options_.exchange) {
        for (const RankState& state : options_.exchange->collect()) keep(state, now_s);
    }
    if (lag_due_s_ < 0.0 || now_s < lag_due_s_) return;
    lag_due_s_ = -1.0;
    std::erase_if(states_, [&](const auto& known) {
        return now_s - known.first > std::max(options_.timeout_s, 4.0 * options_.poll_s);
    });
    std::vector<RankState> states;
    for (const auto& known : states_) states.push_back(known.second);
    if (options_.world_size > 1) {
        options_.report("watchdog: " + describe_lag(states, options_.world_size));
    }
}

}  // namespace rankwise::parallel
