#include "src/app/phase_traffic.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "src/base/error.hpp"

namespace rankwise::app {
namespace {

/// All ranks bring these together in the same order, whether or not they have sent any.
constexpr std::array<std::string_view, 5> kPhases{"generate", "reference", "update", "evaluate",
                                                  "other"};
constexpr std::array<std::string_view, 5> kAxes{"data", "pipeline", "tensor", "expert", "world"};

std::string_view compared_phase(std::string_view phase) {
    if (phase == "optimizer") return "update";
    return std::ranges::find(kPhases, phase) == kPhases.end() ? "other" : phase;
}

std::size_t place_of_row(std::string_view phase, std::string_view axis) {
    const auto p = std::ranges::find(kPhases, compared_phase(phase)) - kPhases.begin();
    const auto a = std::ranges::find(kAxes, axis) - kAxes.begin();
    ensure(a < std::ssize(kAxes), "bytes of an unknown axis {}", axis);
    return static_cast<std::size_t>(p * std::ssize(kAxes) + a);
}

}  // namespace

void raise_to(std::vector<PhaseTraffic>& rows, const PhaseTraffic& row) {
    PhaseTraffic& entry = row_of(rows, row.phase, row.axis);
    entry.bytes = std::max(entry.bytes, row.bytes);
}

void raise_to(std::vector<TrafficRecord>& rows, const TrafficRecord& row) {
    TrafficRecord& entry = row_of(rows, row.phase, row.axis);
    entry.planned = std::max(entry.planned, row.planned);
    entry.sent = std::max(entry.sent, row.sent);
}

TrafficMeter::TrafficMeter(std::shared_ptr<const parallel::Traffic> traffic)
    : traffic_(std::move(traffic)) {}

void TrafficMeter::enter_phase(std::string_view phase) {
    if (traffic_ == nullptr) return;
    std::map<std::string, std::int64_t> now = traffic_->bytes_by_communicator();
    for (const auto& [axis, bytes] : now) {
        const auto before = seen_.find(axis);
        const std::int64_t sent = bytes - (before == seen_.end() ? 0 : before->second);
        if (sent > 0) row_of(step_, phase_, axis).bytes += static_cast<double>(sent);
    }
    seen_ = std::move(now);
    phase_ = compared_phase(phase);
}

void TrafficMeter::end_step() {
    enter_phase("other");
    for (const PhaseTraffic& row : step_) raise_to(most_, row);
    step_.clear();
}

void TrafficMeter::begin_stage() {
    enter_phase("other");
    step_.clear();
    most_.clear();
}

std::vector<TrafficRecord> TrafficMeter::compare(const std::vector<PhaseTraffic>& planned,
                                                 parallel::Communicator& world) const {
    constexpr std::size_t kRows = kPhases.size() * kAxes.size();
    std::array<std::int64_t, 2 * kRows> bytes{};
    for (const PhaseTraffic& row : planned)
        bytes.at(place_of_row(row.phase, row.axis)) += static_cast<std::int64_t>(row.bytes);
    for (const PhaseTraffic& row : most_)
        bytes.at(kRows + place_of_row(row.phase, row.axis)) += static_cast<std::int64_t>(row.bytes);
    world.all_reduce_max("traffic:most", std::span(bytes));
    std::vector<TrafficRecord> records;
    for (std::size_t row = 0; row < kRows; ++row) {
        if (bytes.at(row) == 0 && bytes.at(kRows + row) == 0) continue;
        records.push_back({std::string(kPhases.at(row / kAxes.size())),
                           std::string(kAxes.at(row % kAxes.size())), bytes.at(row),
                           bytes.at(kRows + row)});
    }
    return records;
}

}  // namespace rankwise::app
