// The kinds of stages there are. A new one is one file and one row here.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "src/stages/stage.hpp"

namespace rankwise::stages {

/// A stage as a recipe describes it: its options, bound to memory that `build` shares.
struct StageRecipe {
    OptionList options;
    std::function<std::unique_ptr<Stage>(const Environment&)> build;
};

struct StageKind {
    std::string name;
    std::function<StageRecipe()> recipe;
};

[[nodiscard]] std::span<const StageKind> stage_kinds();

}  // namespace rankwise::stages
