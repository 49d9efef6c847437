// rankwise plan: what a recipe will need on some ranks, without starting them.
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <tuple>
#include <vector>

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
#include "src/model/decoder.hpp"

namespace rankwise::app {
namespace {

/// A layout and what it would take.
struct Candidate {
    Layout layout;
    std::int64_t bytes = 0;      ///< of a rank, program included
    double sent = 0.0;           ///< by a rank in a step, bytes; the stage that sends most
    std::int64_t recompute = 0;  ///< layers of each stage that the backward pass computes again
};

double most_sent(std::span<const StageMemory> plan) {
    double most = 0.0;
    for (const StageMemory& stage : plan) {
        double sent = 0.0;
        for (const PhaseTraffic& row : stage.sent) sent += row.bytes;
        most = std::max(most, sent);
    }
    return most;
}

/// What splits least comes first: copies of the layers are shared by as few ranks as may be, among
/// those by pipeline ranks (which send least) rather than tensor ranks; data ranks share out their
/// optimizer before experts, whose tokens then travel, and those before all weights.
std::vector<Candidate> candidates(TrainEngine& engine, int ranks, std::int64_t program,
                                  std::int64_t limit) {
    std::vector<Candidate> found;
    for (const Layout& layout : engine.layouts(ranks)) {
        const auto [recompute, plan] = engine.fit_memory(0, layout, limit - program);
        found.push_back({layout, largest(plan).bytes() + program, most_sent(plan), recompute});
    }
    const auto order = [](const Candidate& candidate) {
        const auto& [shape, zero] = candidate.layout;
        return std::tuple(shape.pipeline * shape.tensor, zero == 3, shape.expert,
                          zero == 0 ? 2 : zero, shape.tensor);
    };
    std::ranges::stable_sort(found, {}, order);
    return found;
}

/// Layers that are computed again, in words.
std::string layers(std::int64_t recompute) {
    if (recompute == 0) return "-";
    return recompute == model::kAllLayers ? "all" : fmt::format("{}", recompute);
}

std::string proposal(std::span<const Candidate> all, std::int64_t limit) {
    std::string text = fmt::format(
        "layouts of these ranks, what splits least first; * fits in {} MB a rank\n  {:>6} {:>8} "
        "{:>6} {:>4} {:>6} {:>10} {:>10} {:>12}\n",
        megabytes(limit), "data", "pipeline", "tensor", "zero", "expert", "recompute", "MB a rank",
        "MB sent");
    const Candidate* proposed = nullptr;
    const Candidate* smallest = nullptr;
    for (const Candidate& candidate : all) {
        const auto& [shape, zero] = candidate.layout;
        const bool fits = candidate.bytes <= limit;
        text += fmt::format("{} {:>6} {:>8} {:>6} {:>4} {:>6} {:>10} {:>10} {:>12.3f}\n",
                            fits ? '*' : ' ', shape.data, shape.pipeline, shape.tensor, zero,
                            shape.expert, layers(candidate.recompute), megabytes(candidate.bytes),
                            candidate.sent / 1e6);
        if (fits && proposed == nullptr) proposed = &candidate;
        if (smallest == nullptr || candidate.bytes < smallest->bytes) smallest = &candidate;
    }
    if (proposed != nullptr) {
        const auto& [shape, zero] = proposed->layout;
        text += fmt::format("proposed: [parallel] pipeline = {}, tensor = {}, zero = {}",
                            shape.pipeline, shape.tensor, zero);
        if (shape.expert > 1) text += fmt::format(", expert = {}", shape.expert);
        return text + "\n";
    }
    return text + fmt::format(
                      "none fits: the smallest takes {} MB; give more ranks, fewer [generation] "
                      "slots, a smaller chunk_tokens, or [update] recompute = fit\n",
                      megabytes(smallest->bytes));
}

}  // namespace

int run_plan(const Arguments& arguments) {
    const std::int64_t program = program_bytes();
    const io::Path file = arguments.positional.at(0);
    std::int64_t ranks = 1;
    double memory_gb = 0.0;
    std::vector<std::string> problems;
    OptionList own;
    own.logical("ranks", &ranks, "ranks to plan for").at_least(1);
    own.logical("memory-gb", &memory_gb, "10^9 bytes that a rank may take; lists layouts")
        .at_least(0);
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
    TrainEngine engine(
        recipe, paths, *fs, session, log, clock, [](std::string_view, std::int64_t) {},
        TrainEngine::Purpose::plan);
    engine.check_stages(session, 0);
    const std::int64_t limit = memory_gb > 0.0 ? static_cast<std::int64_t>(memory_gb * 1e9)
                               : recipe.run.memory_gb > 0
                                   ? static_cast<std::int64_t>(recipe.run.memory_gb * 1e9)
                                   : available_bytes() + program;
    const auto [recompute, plan] = engine.fit_memory(0, engine.layout(), limit - program);
    fmt::print("{}: {} rank{}, {}\n{}", file.string(), ranks, ranks == 1 ? "" : "s",
               to_string(engine.shape()), memory_table(plan, program));
    if (recipe.update.recompute == "fit")
        fmt::print(
            "recompute = fit: layers of each stage that are computed again to fit in {} MB: {}\n",
            megabytes(limit), layers(recompute));
    fmt::print("{}{}\n", traffic_table(plan), memory_line(plan, program));
    if (memory_gb > 0.0) {
        const std::vector<Candidate> all = candidates(engine, narrow<int>(ranks), program, limit);
        fmt::print("{}", proposal(all, limit));
    }
    return static_cast<int>(ExitCode::done);
}

}  // namespace rankwise::app
