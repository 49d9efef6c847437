// A run in short, for its end: what it measured after each stage, and one problem as each stage
// answered it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "src/app/run_records.hpp"

namespace rankwise::app {

/// The answers to one held-out problem, one a stage that answered it (its last), in the order of
/// the stages. The problem is the one that shows most: wrong before and right at the end, after
/// more thought; the first of those. Empty if no problem was answered in two stages.
[[nodiscard]] std::vector<const SampleRecord*> told_problem(std::span<const SampleRecord> samples);

/// A table with the last evaluation of each stage, and the told problem, in lines of at most
/// `columns`. Empty if nothing was evaluated.
[[nodiscard]] std::string run_story(std::span<const MetricRecord> metrics,
                                    std::span<const SampleRecord> samples, std::size_t columns);

}  // namespace rankwise::app
