// rankwise eval: a model on a recipe's held-out problems, measured as an evaluate stage does.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "io/checkpoint.hpp"
#include "src/app/command_io.hpp"
#include "src/app/command_options.hpp"
#include "src/app/commands.hpp"
#include "src/app/display.hpp"
#include "src/app/run_directory.hpp"
#include "src/app/session.hpp"
#include "src/app/stop.hpp"
#include "src/app/train_engine.hpp"
#include "src/app/train_recipe.hpp"
#include "src/stages/interval.hpp"

namespace rankwise::app {
namespace {

/// What is to be measured, and how.
struct Evaluation {
    TrainRecipe recipe;
    std::string logical;  ///< of the recipe, to be the same on all ranks
    std::string stage;
    stages::EvaluateOptions options;
};

bool is_folder(const io::Path& path) {
    std::error_code error;
    return std::filesystem::is_directory(path, error);
}

/// The stage that --stage names; else the last of kind evaluate; else the last.
const NamedStage* chosen_stage(const TrainRecipe& recipe, const Arguments& arguments,
                               std::vector<std::string>& problems) {
    const NamedStage* chosen = nullptr;
    std::vector<std::string> names;
    for (const auto& stage : recipe.stages) {
        names.push_back(stage->name);
        if (arguments.has("stage")
                ? stage->name == arguments.get("stage")
                : chosen == nullptr || chosen->kind != "evaluate" || stage->kind == "evaluate") {
            chosen = stage.get();
        }
    }
    if (chosen == nullptr && arguments.has("stage")) {
        problems.push_back(fmt::format("--stage: expected one of {}, found '{}'",
                                       fmt::join(names, ", "), arguments.get("stage")));
    }
    return chosen;
}

/// The model to measure: --model; else the newest checkpoint of the run; else what the recipe
/// starts from.
std::string chosen_model(const TrainRecipe& recipe, const Arguments& arguments,
                         const io::Path& recipe_file, std::vector<std::string>& problems) {
    if (arguments.has("model")) return arguments.get("model");
    const io::Path given = arguments.positional.at(0);
    if (is_folder(given)) return given.string();
    const io::Path run = recipe.run.directory.empty() ? default_directory(recipe_file)
                                                      : io::Path(recipe.run.directory);
    if (is_folder(RunPaths{run}.checkpoints())) return run.string();
    if (recipe.model.folder.empty()) {
        problems.push_back(fmt::format(
            "there is no run in {} yet, and the recipe names no [model.policy] folder: give "
            "--model, a Hugging Face folder, a checkpoint or a run",
            run.string()));
    }
    return recipe.model.folder;
}

Evaluation read_evaluation(const Arguments& arguments) {
    const io::Path given = arguments.positional.at(0);
    const io::Path file = is_folder(given) ? RunPaths{given}.recipe() : given;
    Evaluation evaluation;
    TrainRecipe& recipe = evaluation.recipe;
    Recipe text = Recipe::read(file, arguments.settings);
    recipe.bind(text);
    std::vector<std::string> problems;
    try {
        text.finish();
    } catch (const Problems& found) {
        problems = found.list();
    }
    recipe.model.folder = chosen_model(recipe, arguments, file, problems);
    recipe.parallel.data = 0;  // any number of ranks gives the same answer
    evaluation.logical = text.logical_text();
    if (const NamedStage* stage = chosen_stage(recipe, arguments, problems)) {
        evaluation.stage = stage->name;
        evaluation.options = stage->recipe.measurement();
    }
    OptionList own;
    own.logical("samples", &evaluation.options.samples, "answers to each problem").at_least(1);
    own.logical("problems", &evaluation.options.problems, "held-out problems").at_least(0);
    read_options(arguments, own, problems);
    if (!problems.empty()) throw Problems(std::move(problems));
    return evaluation;
}

/// The last part of a metric's name: "eval/pass@1" is pass@1.
std::string_view without_prefix(std::string_view name) {
    constexpr std::string_view kPrefix = "eval/";
    return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

void print_table(const io::MetricLine& metrics, const Evaluation& evaluation, std::int64_t problems,
                 const std::string& model) {
    const stages::EvaluateOptions& options = evaluation.options;
    fmt::print("{}\n", model);
    fmt::print(
        "{} held-out problems, {} answer{} each (stage {}: temperature {}, top_p {}, at most {} "
        "tokens)\n\n",
        problems, options.samples, options.samples == 1 ? "" : "s", evaluation.stage,
        options.sampling.temperature, options.sampling.top_p,
        options.sampling.max_completion_length);
    std::size_t width = 0;
    for (const auto& [name, value] : metrics) {
        if (!stages::is_bound(name)) width = std::max(width, without_prefix(name).size());
    }
    const auto number = [&](const std::string& name) -> const double* {
        for (const auto& [key, value] : metrics) {
            if (key == name) return std::get_if<double>(&value);
        }
        return nullptr;
    };
    for (const auto& [name, value] : metrics) {
        const double* shown = std::get_if<double>(&value);
        if (shown == nullptr || stages::is_bound(name)) continue;
        const double* low = number(name + stages::kLow95);
        const double* high = number(name + stages::kHigh95);
        fmt::print("  {:<{}}  {}{}\n", without_prefix(name), width, number_text(*shown),
                   low == nullptr || high == nullptr
                       ? ""
                       : fmt::format("  (95 %: {} to {})", number_text(*low), number_text(*high)));
    }
    fmt::print("\n");
}

}  // namespace

int run_eval(const Arguments& arguments, Session& session) {
    remove_stop_signals();  // there is nothing to be saved: a signal ends it as any program
    const auto fs = io::posix_file_system();
    Evaluation evaluation;
    Output output;
    std::string model;
    session.start_together([&] {
        evaluation = read_evaluation(arguments);
        const auto source = stages::ModelSource::open(*fs, evaluation.recipe.model.folder);
        model = source.title();
        // A run that goes on may write a newer checkpoint meanwhile.
        evaluation.recipe.model.folder = source.path().string();
        if (session.rank() != 0) return;
        for (const std::string& note : source.notes()) fmt::print(stderr, "passed by: {}\n", note);
        if (arguments.has("output")) output.open(arguments.get("output"));
    });
    session.require_same("recipe", evaluation.logical,
                         "give every rank the same file and the same command line");
    session.require_same("model", model, "all ranks must see the same files");

    const Log log;
    const SteadyClock clock;
    for (const auto& stage : evaluation.recipe.stages) stage->model = "policy";  // the given model
    const RunPaths nothing_written;
    TrainEngine engine(evaluation.recipe, nothing_written, *fs, session, log, clock,
                       [&](std::string_view phase, std::int64_t step) {
                           if (session.recorder()) session.recorder()->set_phase(phase, step);
                       });
    const stages::Environment& environment = engine.environment();
    session.start_together([&] {
        require(environment.task.held_out != nullptr,
                "the recipe's task has no held-out problems: set [task] evaluation");
        engine.load_initial();
    });

    stages::PhaseTimer timer(environment, 0);
    tasks::RewardSet rewards = evaluation.options.rewards.rewards();
    rollout::Generator generator = stages::make_generator(environment, engine.policy());
    const stages::EvaluationResult result =
        stages::evaluate(environment, evaluation.options, generator, rewards, timer);
    const UInt128 rollouts = stages::digest_of(environment, result.rollouts);
    const UInt128 weights = engine.policy().digest(engine.compute());
    if (session.rank() != 0) return static_cast<int>(ExitCode::done);

    const std::int64_t all = environment.task.held_out->size().value_or(0);
    const std::int64_t problems =
        evaluation.options.problems > 0 ? std::min(evaluation.options.problems, all) : all;
    print_table(result.metrics, evaluation, problems, model);
    io::MetricLine line{{"record", "evaluation"},
                        {"model", model},
                        {"stage", evaluation.stage},
                        {"problems", problems},
                        {"samples", evaluation.options.samples}};
    line.insert(line.end(), result.metrics.begin(), result.metrics.end());
    line.emplace_back("digest/weights", to_hex(weights));
    line.emplace_back("digest/rollouts", to_hex(rollouts));
    const std::string json = io::to_json(line) + "\n";
    fmt::print("{}", json);
    if (output.is_open()) output.write(json);
    output.close();
    return static_cast<int>(ExitCode::done);
}

}  // namespace rankwise::app
