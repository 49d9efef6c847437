// Everything that the recipe of a training run says, parsed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/app/engine_options.hpp"
#include "src/app/recipe.hpp"
#include "src/app/run_options.hpp"
#include "src/stages/stage_table.hpp"

namespace rankwise::app {

/// [stage.NAME]
struct NamedStage {
    std::string name;
    std::string kind;
    std::string start_from;  ///< empty: where the stage before ended
    stages::StageRecipe recipe;
};

struct TrainRecipe {
    RunOptions run;
    ResumeOptions resume;
    DeviceOptions device;
    ParallelOptions parallel;
    GenerationOptions generation;
    UpdateOptions update;
    FaultOptions faults;
    ModelOptions model;
    stages::TaskOptions task;
    std::vector<std::unique_ptr<NamedStage>> stages;  ///< in the order in which they run

    /// Reads every section; [run] stages says which stages there are. Problems stay in `recipe`,
    /// whose finish() throws them.
    void bind(Recipe& recipe);
};

/// A place in the steps of a run's stages.
struct Position {
    std::size_t stage = 0;
    std::int64_t step = 0;            ///< steps of the stage that are done
    std::int64_t steps_before = 0;    ///< steps of the stages before it
    std::int64_t updates_before = 0;  ///< optimizer steps of the stages before it
};

}  // namespace rankwise::app
