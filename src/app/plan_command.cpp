// rankwise plan: what a recipe will need on some ranks, without starting them.
#include <fmt/format.h>

#include "io/fs.hpp"
#include "kernels/plan_device.hpp"
#include "parallel/mirror_communicator.hpp"
#include "src/app/command_options.hpp"
#include "src/app/commands.hpp"
#include "src/app/memory_plan.hpp"
#include "src/app/run_directory.hpp"
#include "src/app/train_engine.hpp"
#include "src/app/train_recipe.hpp"
#include "src/base/clock.hpp"
#include "src/base/log.hpp"

namespace rankwise::app {

int run_plan(const Arguments& arguments) {
    const std::int64_t program = program_bytes();
    const io::Path file = arguments.positional.at(0);
    std::int64_t ranks = 1;
    std::vector<std::string> problems;
    OptionList own;
    own.logical("ranks", &ranks, "ranks to plan for").at_least(1);
    read_options(arguments, own, problems);
    TrainRecipe recipe;
    Recipe text = Recipe::read(file, arguments.settings);
    recipe.bind(text);
    try {
        text.finish();
    } catch (const Problems& found) {
        problems.insert(problems.end(), found.list().begin(), found.list().end());
    }
    if (!problems.empty()) throw Problems(std::move(problems));

    const auto world = parallel::make_mirror_world(recipe.parallel.shape(narrow<int>(ranks)), 0,
                                                   kernels::PlanDevice::owns);
    Session session(*world, nullptr);
    const auto fs = io::posix_file_system();
    const Log log;
    const SteadyClock clock;
    const RunPaths paths{recipe.run.directory.empty() ? default_directory(file)
                                                      : io::Path(recipe.run.directory)};
    TrainEngine engine(recipe, paths, *fs, session, log, clock,
                       [](std::string_view, std::int64_t) {});
    engine.check_stages(session, 0);
    const std::vector<StageMemory> plan = engine.plan_memory(0);
    fmt::print("{}: {} rank{}, {}\n{}", file.string(), ranks, ranks == 1 ? "" : "s",
               to_string(engine.shape()), memory_table(plan, program));
    fmt::print("{}{}\n", traffic_table(plan), memory_line(plan, program));
    return static_cast<int>(ExitCode::done);
}

}  // namespace rankwise::app
