// The chain of stages as one picture: a box a stage, arrows for weights and data.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/app/chain.hpp"
#include "src/app/run_records.hpp"

namespace rankwise::app {

/// An <svg> 1146 units wide: boxes in the order in which stages run, in as many rows as it takes;
/// in each box name, kind, model, steps, and the curve of its reward or loss; an arrow from the
/// stage whose weights it starts from, and a dashed one from the stage whose answers it learns
/// from. Each box is a link to the section "stage-NAME" of the page.
[[nodiscard]] std::string chain_svg(std::span<const ChainStage> chain,
                                    std::span<const MetricRecord> metrics);

/// The place of a stage's model among the models of the chain, from 0: which colour it has.
[[nodiscard]] std::size_t model_place(std::span<const ChainStage> chain, std::string_view model);

}  // namespace rankwise::app
