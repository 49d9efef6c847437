// One problem as it was answered in the course of a run.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "src/app/chain.hpp"
#include "src/app/run_records.hpp"

namespace rankwise::app {

/// A prompt and its answers, in the order of the run. Refers to the samples.
struct AskedProblem {
    std::string_view prompt;
    std::vector<const SampleRecord*> answers;
};

/// Samples by prompt, in the order in which the prompts first came.
[[nodiscard]] std::vector<AskedProblem> problems_asked(std::span<const SampleRecord> samples);

/// The answers to one held-out problem, one a stage that answered it (its last), in the order of
/// the stages. Of the problems that most stages answered it is the one that shows most, the first
/// of those: right in the end, wrong at first, as seldom lost again as may be, late found, and with
/// more thought. Stages of another model than the first one's are among the answers, and count for
/// nothing in the choice. Empty if no problem was answered in two stages.
[[nodiscard]] std::vector<const SampleRecord*> told_problem(std::span<const SampleRecord> samples,
                                                            std::span<const ChainStage> chain = {});

}  // namespace rankwise::app
