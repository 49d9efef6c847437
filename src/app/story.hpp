// A run in short, for its end: what it measured after each stage, and one problem as each stage
// answered it.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "src/app/chain.hpp"
#include "src/app/run_records.hpp"

namespace rankwise::app {

/// A table with the last evaluation of each stage (as many columns as fit), and the told problem,
/// in lines of at most `columns`. Empty if nothing was evaluated.
[[nodiscard]] std::string run_story(std::span<const MetricRecord> metrics,
                                    std::span<const SampleRecord> samples, std::size_t columns,
                                    std::span<const ChainStage> chain = {});

}  // namespace rankwise::app
