// Everything that the recipe of a training run says, parsed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
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
    std::string model = "policy";  ///< [model.NAME] that it trains or asks
    std::string start_from;        ///< empty: where the stage before with this model ended
    stages::StageRecipe recipe;

    /// Those of every kind.
    [[nodiscard]] OptionList options();
};

struct TrainRecipe {
    RunOptions run;
    ResumeOptions resume;
    DeviceOptions device;
    ParallelOptions parallel;
    GenerationOptions generation;
    UpdateOptions update;
    FaultOptions faults;
    ModelOptions model;                          ///< [model.policy]
    std::map<std::string, ModelOptions> models;  ///< the others that stages name
    stages::TaskOptions task;
    std::vector<std::unique_ptr<NamedStage>> stages;  ///< in the order in which they run

    /// Reads every section; [run] stages says which stages there are. Problems stay in `recipe`,
    /// whose finish() throws them.
    void bind(Recipe& recipe);

    [[nodiscard]] const ModelOptions& model_of(const std::string& name) const {
        return name == "policy" ? model : models.at(name);
    }
    /// Place of a stage; nothing for any other word.
    [[nodiscard]] std::optional<std::size_t> stage_named(const std::string& name) const;
    /// The last stage before `stage` with the same model.
    [[nodiscard]] std::optional<std::size_t> stage_before(std::size_t stage) const;

  private:
    void check_sources(Recipe& recipe) const;
};

/// A place in the steps of a run's stages.
struct Position {
    std::size_t stage = 0;
    std::int64_t step = 0;            ///< steps of the stage that are done
    std::int64_t steps_before = 0;    ///< steps of the stages before it
    std::int64_t updates_before = 0;  ///< optimizer steps of the stages before it
};

}  // namespace rankwise::app
