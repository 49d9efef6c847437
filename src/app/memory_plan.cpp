#include "src/app/memory_plan.hpp"

#include <algorithm>
#include <fstream>
#include <limits>

#include <fmt/format.h>
#include <malloc.h>

#include "kernels/plan_device.hpp"
#include "parallel/mirror_communicator.hpp"

namespace rankwise::app {
namespace {

constexpr double kMegabyte = 1e6;
/// Code of MPI, HDF5 and others that is first run by a step or a save, their buffers, and lists of
/// answers: 10 to 16 MB were measured in the first stages, 36 MB at the end of a chain of eleven.
constexpr std::int64_t kLater = 22'000'000;

/// A number of kilobytes that /proc/FILE names, in bytes; 0 if it does not.
std::int64_t proc_bytes(const char* file, std::string_view name) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        if (!line.starts_with(name)) continue;
        return std::atoll(line.c_str() + name.size()) * 1024;
    }
    return 0;
}

std::int64_t number_in(const char* file) {
    std::ifstream in(file);
    std::int64_t value = -1;
    in >> value;
    return in ? value : -1;
}

/// Adds what was sent since the last call.
void add_traffic(std::vector<PhaseTraffic>& sent, std::string_view phase, double times,
                 parallel::Traffic& traffic) {
    for (const auto& [axis, bytes] : traffic.bytes_by_communicator())
        row_of(sent, phase, axis).bytes += times * static_cast<double>(bytes);
    traffic.reset();
}

/// As `rank` of the run.
StageMemory rehearse_rank(int rank, const stages::StageRecipe& recipe,
                          const stages::Environment& environment, const parallel::MeshShape& shape,
                          const stages::PhysicalOptions& physical,
                          const model::ModelConfig& config) {
    StageMemory memory;
    kernels::PlanDevice device(environment.compute.device);
    const auto stream = device.make_stream();
    model::ModelSet models;
    const auto traffic = std::make_shared<parallel::Traffic>();
    const auto world =
        parallel::make_mirror_world(shape, rank, kernels::PlanDevice::owns, {.traffic = traffic});
    const parallel::Mesh mesh(*world, shape);
    const model::Weights& policy =
        models.add("policy", std::make_unique<model::Weights>(device, config,
                                                              model::Passes::forward_and_backward,
                                                              stages::model_axes(mesh, physical)));
    memory.policy = device.bytes_in_use();
    // Scratch memory is counted apart: as it grows it holds more than it needs.
    kernels::PlanDevice scratch(environment.compute.device);
    kernels::Arena arena(scratch);
    model::Compute compute{device, *stream, arena};
    const stages::Environment planned{
        .compute = compute,
        .mesh = mesh,
        .models = models,
        .task = environment.task,
        .log = environment.log,
        .clock = environment.clock,
        .seed = environment.seed,
        .physical = physical,
        .enter_phase = [](std::string_view, std::int64_t) {},
        .stage = environment.stage,
        .data_before = environment.data_before,
        .files = environment.files,
        .data_folder = environment.data_folder,
        .planning = true,
        .rehearsed = [&](std::string_view phase,
                         double times) { add_traffic(memory.sent, phase, times, *traffic); }};
    const auto stage = recipe.build(planned);
    std::int64_t on_device = 0;  // of other models than the policy
    for (const auto& [name, model] : models.all()) {
        if (name == "policy") continue;
        kernels::PlanDevice alone(environment.compute.device);
        const model::Weights same(alone, model->config(), model::Passes::forward,
                                  planned.model_axes(), planned.residence(name));
        on_device += alone.bytes_in_use();
        memory.reference += alone.bytes_in_use() + model->host_bytes();
    }
    const std::int64_t built = device.bytes_in_use();
    for (const stages::OptimizerState& state : stage->optimizers()) {
        memory.optimizer += state.optimizer->first_moments().size_bytes() +
                            state.optimizer->second_moments().size_bytes();
    }
    memory.gradients = built - memory.policy - on_device - memory.optimizer;
    traffic->reset();
    stage->rehearse();
    memory.reserve = arena.peak_bytes();
    memory.activations = arena.activations_at_peak() + arena.peak_bytes_beside();
    memory.buffers = arena.peak_bytes() - arena.activations_at_peak();
    memory.cache = device.peak_bytes() - built;
    // A rank saves its rows of the weights, and the moments if the stage trains.
    const std::int64_t parts = stage->optimizers().empty() ? 1 : 3;
    memory.saving = policy.sharded() ? policy.bytes() * parts
                                     : ceil_div(policy.bytes() * parts, std::int64_t{shape.data});
    return memory;
}

}  // namespace

StageMemory rehearse(const stages::StageRecipe& recipe, const stages::Environment& environment,
                     const parallel::MeshShape& shape, const stages::PhysicalOptions& physical,
                     const model::ModelConfig& config) {
    const parallel::Coordinates at =
        parallel::coordinates_of(shape, environment.mesh.world().rank());
    StageMemory most;
    std::vector<PhaseTraffic> sent;
    std::int64_t own = 0;
    for (int stage = 0; stage < shape.pipeline; ++stage) {
        const StageMemory memory =
            rehearse_rank(parallel::rank_of(shape, at.data, stage, at.tensor), recipe, environment,
                          shape, physical, config);
        if (stage == at.pipeline) own = memory.reserve;
        for (const PhaseTraffic& row : memory.sent) raise_to(sent, row);
        if (stage == 0 || memory.bytes() > most.bytes()) most = memory;
    }
    most.reserve = own;
    most.sent = std::move(sent);
    return most;
}

const StageMemory& largest(std::span<const StageMemory> plan) {
    return *std::max_element(
        plan.begin(), plan.end(),
        [](const StageMemory& a, const StageMemory& b) { return a.bytes() < b.bytes(); });
}

std::string megabytes(std::int64_t bytes) {
    return fmt::format("{:.0f}", std::max(1.0, static_cast<double>(bytes) / kMegabyte));
}

std::string memory_table(std::span<const StageMemory> plan, std::int64_t program) {
    std::size_t width = 5;
    for (const StageMemory& stage : plan) width = std::max(width, stage.stage.size());
    constexpr const char* kRow =
        "  {:<{}} {:<8} {:>8} {:>9} {:>9} {:>9} {:>8} {:>11} {:>8} {:>8} {:>8}\n";
    std::string text = fmt::format(
        "MB a rank at most; the program itself takes {}\n{}", megabytes(program),
        fmt::format(kRow, "stage", width, "kind", "weights", "reference", "gradients", "optimizer",
                    "KV cache", "activations", "buffers", "saving", "in all"));
    const auto cell = [](std::int64_t bytes) {
        return bytes == 0 ? std::string("-")
                          : fmt::format("{:.1f}", static_cast<double>(bytes) / kMegabyte);
    };
    for (const StageMemory& stage : plan) {
        text += fmt::format(kRow, stage.stage, width, stage.kind, cell(stage.policy),
                            cell(stage.reference), cell(stage.gradients), cell(stage.optimizer),
                            cell(stage.cache), cell(stage.activations), cell(stage.buffers),
                            cell(stage.saving), cell(stage.bytes() + program));
    }
    return text;
}

std::string traffic_table(std::span<const StageMemory> plan) {
    std::size_t width = 5;
    bool any = false;
    for (const StageMemory& stage : plan) {
        width = std::max(width, stage.stage.size());
        any = any || !stage.sent.empty();
    }
    if (!any) return {};
    std::string text = fmt::format(
        "MB that a rank sends in a step at most (evaluate: in an evaluation)\n  {:<{}} {:<10} "
        "{:<8} {:>10}\n",
        "stage", width, "phase", "axis", "MB");
    for (const StageMemory& stage : plan) {
        for (const PhaseTraffic& row : stage.sent) {
            text += fmt::format("  {:<{}} {:<10} {:<8} {:>10.3f}\n", stage.stage, width, row.phase,
                                row.axis, row.bytes / kMegabyte);
        }
    }
    return text;
}

std::string memory_line(std::span<const StageMemory> plan, std::int64_t program) {
    const StageMemory& most = largest(plan);
    std::string kinds;
    const auto add = [&](const char* name, std::int64_t bytes) {
        if (bytes > 0) kinds += fmt::format(", {} {}", name, megabytes(bytes));
    };
    add("weights", most.policy);
    add("reference", most.reference);
    add("gradients", most.gradients);
    add("optimizer", most.optimizer);
    add("KV cache", most.cache);
    add("activations", most.activations);
    add("buffers", most.buffers);
    add("saving", most.saving);
    return fmt::format("memory: at most {} MB a rank, in stage {} (program {}{})",
                       megabytes(most.bytes() + program), most.stage, megabytes(program), kinds);
}

std::int64_t program_bytes() {
    return resident_bytes() + kLater;
}

std::int64_t resident_bytes() {
    return proc_bytes("/proc/self/status", "VmRSS:");
}

std::int64_t peak_resident_bytes() {
    return proc_bytes("/proc/self/status", "VmHWM:");
}

void reset_peak() {
#ifdef __GLIBC__
    malloc_trim(0);  // what has been freed in small pieces goes back to the system too
#endif
    std::ofstream("/proc/self/clear_refs") << "5";
}

std::int64_t available_bytes() {
    std::int64_t available = proc_bytes("/proc/meminfo", "MemAvailable:");
    if (available == 0) available = std::numeric_limits<std::int64_t>::max();
    const std::int64_t limit = number_in("/sys/fs/cgroup/memory.max");
    const std::int64_t used = number_in("/sys/fs/cgroup/memory.current");
    if (limit > 0 && used >= 0) available = std::min(available, limit - used);
    return available;
}

void require_memory(std::span<const StageMemory> plan, std::int64_t program, int ranks_here,
                    std::int64_t available) {
    const std::int64_t needed = largest(plan).bytes() * ranks_here;
    if (needed <= available) return;
    throw EnvironmentError(fmt::format(
        "stage {} may need {} MB more on each rank, which is {} MB for the {} rank{} of this node, "
        "but they may take {}: start fewer ranks a node, raise [run] memory_gb if it is set, lower "
        "[generation] slots or "
        "max_completion_length (KV cache), chunk_tokens or [update] recompute = fit (activations), "
        "or take the risk with [run] memory_check = warn\n{}",
        largest(plan).stage, megabytes(largest(plan).bytes()), megabytes(needed), ranks_here,
        ranks_here == 1 ? "" : "s", megabytes(available), memory_table(plan, program)));
}

}  // namespace rankwise::app
