#include "parallel/flight_recorder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace rankwise::parallel {

namespace {

std::string human_bytes(std::int64_t bytes) {
    constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) return fmt::format("{} bytes", bytes);
    auto value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024.0 && unit + 1 < std::size(kUnits)) {
        value /= 1024.0;
        ++unit;
    }
    return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string describe(const FlightEntry& entry) {
    return fmt::format("{} '{}' on {} (#{}, {})", name_of(entry.op), entry.label,
                       entry.communicator, entry.sequence, human_bytes(entry.bytes));
}

}  // namespace

FlightRecorder::FlightRecorder(std::shared_ptr<const Clock> clock)
    : clock_(std::move(clock)), ring_(kRing), last_change_s_(clock_->now_s()) {}

void FlightRecorder::set_phase(std::string_view phase, std::int64_t step) {
    const std::lock_guard lock(mutex_);
    phase_ = phase;
    step_ = step;
    last_change_s_ = clock_->now_s();
}

void FlightRecorder::beat() {
    const std::lock_guard lock(mutex_);
    last_change_s_ = clock_->now_s();
}

std::uint64_t FlightRecorder::begin(Op op, std::string_view communicator, std::string_view label,
                                    std::int64_t bytes, bool waiting) {
    const std::lock_guard lock(mutex_);
    ++sequence_;
    last_change_s_ = clock_->now_s();
    FlightEntry& entry = ring_[sequence_ % kRing];
    entry.sequence = sequence_;
    entry.op = op;
    entry.communicator = communicator;
    entry.label = label;
    entry.bytes = bytes;
    entry.begin_s = last_change_s_;
    entry.end_s = -1.0;
    entry.phase = phase_;
    entry.step = step_;
    entry.waiting = waiting;
    return sequence_;
}

void FlightRecorder::wait(std::uint64_t ticket) {
    const std::lock_guard lock(mutex_);
    last_change_s_ = clock_->now_s();
    FlightEntry& entry = ring_[ticket % kRing];
    if (entry.sequence == ticket) entry.waiting = true;
}

void FlightRecorder::end(std::uint64_t ticket) {
    const std::lock_guard lock(mutex_);
    last_change_s_ = clock_->now_s();
    FlightEntry& entry = ring_[ticket % kRing];
    if (entry.sequence == ticket) entry.end_s = last_change_s_;
}

std::vector<FlightEntry> FlightRecorder::entries() const {
    const std::lock_guard lock(mutex_);
    return in_order();
}

std::vector<FlightEntry> FlightRecorder::in_order() const {
    std::vector<FlightEntry> result;
    const std::uint64_t first = sequence_ > kRing ? sequence_ - kRing + 1 : 1;
    for (std::uint64_t s = first; s <= sequence_; ++s) result.push_back(ring_[s % kRing]);
    return result;
}

FlightState FlightRecorder::state() const {
    const std::lock_guard lock(mutex_);
    FlightState state;
    const auto ring = in_order();
    for (const FlightEntry& entry : ring) {
        if (!entry.finished()) state.open.push_back(entry);
    }
    if (!ring.empty()) state.latest.push_back(ring.back());
    state.phase = phase_;
    state.step = step_;
    state.sequence = sequence_;
    state.last_change_s = last_change_s_;
    state.now_s = clock_->now_s();
    return state;
}

std::string describe(const FlightState& state) {
    std::string text = fmt::format("phase={} step={}: nothing has moved for {:.1f} s; ",
                                   state.phase, state.step, state.now_s - state.last_change_s);
    if (state.latest.empty()) return text + "no communication yet";
    if (state.open.empty()) {
        const FlightEntry& last = state.latest.front();
        return text + fmt::format("in no communication, the last was {}, finished {:.1f} s ago",
                                  describe(last), state.now_s - last.end_s);
    }
    text += "not finished: ";
    for (const FlightEntry& entry : state.open) {
        text += fmt::format("{}{}{} {:.1f} s ago", &entry == state.open.data() ? "" : ", ",
                            describe(entry), entry.waiting ? " begun" : " started in background",
                            state.now_s - entry.begin_s);
    }
    return text;
}

}  // namespace rankwise::parallel
