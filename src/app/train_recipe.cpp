#include "src/app/train_recipe.hpp"

#include <fmt/format.h>

#include <utility>

#include "src/app/traces.hpp"

namespace rankwise::app {

OptionList NamedStage::options() {
    OptionList list;
    list.logical("model", &model,
                 "the model that the stage works on: [model.NAME] says what it is");
    list.logical("start_from", &start_from,
                 "weights to start from: empty for what the last stage with this model left (the "
                 "first: [model.NAME]); random; a stage before this one; or a Hugging Face folder, "
                 "a checkpoint or a run");
    return list;
}

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
        recipe.bind("stage." + name, stage->options());
        stage->kind = recipe.bind_kind("stage." + name, kinds);
        if (stage->model != "policy" && !models.contains(stage->model))
            recipe.bind("model." + stage->model, models[stage->model].options());
        stages.push_back(std::move(stage));
    }
    check_sources(recipe);
    for (const std::string& text : run.trace) {
        const auto step = traced_step(text);
        const auto stage = step ? stage_named(step->stage) : std::nullopt;
        if (!stage) {
            recipe.add_problem("run", "trace",
                               fmt::format("\"{}\" is no STAGE:STEP of a stage of [run] stages and "
                                           "a step from 1: zero:12, say",
                                           text));
        } else if (!stages[*stage]->recipe.updates) {
            recipe.add_problem(
                "run", "trace",
                fmt::format(
                    "\"{}\": stage {} ({}) updates no weights, so there is nothing to trace", text,
                    step->stage, stages[*stage]->kind));
        }
    }
}

void TrainRecipe::check_sources(Recipe& recipe) const {
    for (std::size_t i = 0; i < stages.size(); ++i) {
        const NamedStage& stage = *stages[i];
        const auto source = stage_named(stage.start_from);
        if (!source || *source < i) continue;
        recipe.add_problem(
            "stage." + stage.name, "start_from",
            *source == i
                ? "names the stage itself; a stage starts from one that has run before it"
                : fmt::format("\"{}\" runs after it: a stage starts from one that has run before, "
                              "and stages run in the order of [run] stages",
                              stage.start_from));
    }
}

std::optional<std::size_t> TrainRecipe::stage_named(const std::string& name) const {
    for (std::size_t i = 0; i < stages.size(); ++i) {
        if (stages[i]->name == name) return i;
    }
    return std::nullopt;
}

std::optional<std::size_t> TrainRecipe::stage_before(std::size_t stage) const {
    for (std::size_t i = stage; i-- > 0;) {
        if (stages[i]->model == stages[stage]->model) return i;
    }
    return std::nullopt;
}

}  // namespace rankwise::app
