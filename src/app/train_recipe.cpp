#include "src/app/train_recipe.hpp"

#include <utility>

namespace rankwise::app {

void TrainRecipe::bind(Recipe& recipe) {
    recipe.bind("run", run.options());
    recipe.bind("resume", resume.options());
    recipe.bind("device", device.options());
    recipe.bind("parallel", parallel.options());
    recipe.bind("generation", generation.options());
    recipe.bind("update", update.options());
    recipe.bind("faults", faults.options());
    recipe.bind("model.policy", model.options());
    recipe.bind("task", task.options());
    if (run.stages.empty())
        recipe.add_problem("run", "stages", "names no stage: nothing would be done");
    for (const std::string& name : run.stages) {
        auto stage = std::make_unique<NamedStage>();
        stage->name = name;
        KindTable kinds;
        for (const stages::StageKind& kind : stages::stage_kinds()) {
            kinds[kind.name] = [&stage, &kind](const std::string&) {
                stage->recipe = kind.recipe();
                return stage->recipe.options;
            };
        }
        OptionList common;
        common.logical("start_from", &stage->start_from,
                       "weights to start from: empty for what the stage before "
                       "left (the first: "
                       "[model.policy]), random, or a model: a Hugging Face "
                       "folder, a checkpoint or a "
                       "run");
        recipe.bind("stage." + name, common);
        stage->kind = recipe.bind_kind("stage." + name, kinds);
        stages.push_back(std::move(stage));
    }
}

}  // namespace rankwise::app
