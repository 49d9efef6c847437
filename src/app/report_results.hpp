// Sections of report.html about what the stages of a run can do.
#pragma once

#include <span>
#include <string>

#include "src/app/chain.hpp"
#include "src/app/run_records.hpp"

namespace rankwise::app {

/// A row for each stage with an evaluation (its last): every measure with its 95 % interval. Empty
/// if nothing was evaluated.
[[nodiscard]] std::string results_section(std::span<const ChainStage> chain,
                                          std::span<const MetricRecord> metrics);

/// The same evaluations by how hard problems are. Empty if the task has no such notion.
[[nodiscard]] std::string difficulty_section(std::span<const ChainStage> chain,
                                             std::span<const MetricRecord> metrics);

/// One held-out problem (told_problem) as answered after each stage. Empty if there is none.
[[nodiscard]] std::string told_section(std::span<const ChainStage> chain,
                                       std::span<const SampleRecord> samples);

/// What each stage was planned to take on a rank, and what it took. Empty if that is not known.
[[nodiscard]] std::string memory_section(std::span<const ChainStage> chain,
                                         std::span<const MemoryRecord> memory);

/// The same for the bytes that ranks sent, by phase and axis. Empty if nobody sent any.
[[nodiscard]] std::string traffic_section(std::span<const ChainStage> chain,
                                          std::span<const MemoryRecord> memory);

}  // namespace rankwise::app
