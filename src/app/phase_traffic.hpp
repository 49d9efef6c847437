// What ranks send, by phase and axis: as planned, and as counted in a run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.hpp"
#include "parallel/traffic.hpp"

namespace rankwise::app {

/// What a rank sends in a phase along an axis: bytes in a step, at most ("evaluate": in an
/// evaluation).
struct PhaseTraffic {
    std::string phase, axis;
    double bytes = 0.0;
};

/// A row of a stage's plan beside what was counted, over all ranks.
struct TrafficRecord {
    std::string phase, axis;
    std::int64_t planned = 0;
    std::int64_t sent = 0;
};

/// The row of a phase and an axis, made if there is none.
template <class Row>
[[nodiscard]] Row& row_of(std::vector<Row>& rows, std::string_view phase, std::string_view axis) {
    const auto same = std::ranges::find_if(
        rows, [&](const Row& other) { return other.phase == phase && other.axis == axis; });
    if (same != rows.end()) return *same;
    return rows.emplace_back(Row{std::string(phase), std::string(axis)});
}
/// Raises the row of the same phase and axis to what this one has.
void raise_to(std::vector<PhaseTraffic>& rows, const PhaseTraffic& row);
void raise_to(std::vector<TrafficRecord>& rows, const TrafficRecord& row);

/// Counts what a rank sends, phase by phase. Several steps of a stage: the one that sent most.
class TrafficMeter {
  public:
    /// @param traffic  of all communicators of the rank; null: nothing is counted
    explicit TrafficMeter(std::shared_ptr<const parallel::Traffic> traffic);

    /// What has been sent since the last call was part of the phase that ends.
    void enter_phase(std::string_view phase);
    void end_step();
    void begin_stage();
    /// Collective. Most that a rank planned and sent in a step, for each phase and axis with any;
    /// the optimizer's share is in "update", phases that no plan knows are "other".
    [[nodiscard]] std::vector<TrafficRecord> compare(const std::vector<PhaseTraffic>& planned,
                                                     parallel::Communicator& world) const;

  private:
    std::shared_ptr<const parallel::Traffic> traffic_;
    std::map<std::string, std::int64_t> seen_;  ///< bytes of each communicator until now
    std::string phase_ = "other";
    std::vector<PhaseTraffic> step_;  ///< of the step under way
    std::vector<PhaseTraffic> most_;
};

}  // namespace rankwise::app
