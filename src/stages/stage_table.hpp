// The kinds of stages there are. A new one is one file and one row here.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/stages/evaluate.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::stages {

/// A stage as a recipe describes it: its options, bound to memory that `build` shares.
struct StageRecipe {
    OptionList options;
    /// What keeps the stage from being built, a line each: so that a run of many stages is refused
    /// at its start, not when it comes to this one.
    std::function<std::vector<std::string>(const Environment&)> problems;
    std::function<std::unique_ptr<Stage>(const Environment&)> build;
    std::function<EvaluateOptions()> measurement;  ///< how the stage measures a model
    bool leaves_data = false;                      ///< rows for sft stages after it
    bool updates = false;                          ///< changes the weights of its model
    /// Whether the stage trains the module of its model that predicts further (model/mtp.hpp).
    std::function<bool()> trains_mtp = [] { return false; };
};

struct StageKind {
    std::string name;
    std::function<StageRecipe()> recipe;
};

[[nodiscard]] std::span<const StageKind> stage_kinds();

}  // namespace rankwise::stages
