// rankwise inspect: what a checkpoint, a step of rollouts, a run or a model folder holds.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include "io/checkpoint.hpp"
#include "io/manifest.hpp"
#include "io/rollouts.hpp"
#include "io/safetensors.hpp"
#include "src/app/commands.hpp"
#include "src/app/display.hpp"
#include "src/app/run_directory.hpp"
#include "src/app/run_records.hpp"
#include "src/app/terminal_text.hpp"

namespace rankwise::app {
namespace {

std::string size_text(std::int64_t bytes) {
    constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
    auto value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024.0 && unit + 1 < kUnits.size()) {
        value /= 1024.0;
        ++unit;
    }
    return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string count_text(std::int64_t count) {
    return number_text(static_cast<double>(count));
}

void print_fact(std::string_view name, std::string_view value) {
    fmt::print("  {:<15} {}\n", name, value);
}

std::string mesh_text(const std::map<std::string, std::int64_t>& mesh) {
    std::vector<std::string> axes;
    for (const auto& [axis, ranks] : mesh) axes.push_back(fmt::format("{} {}", axis, ranks));
    return fmt::format("{}", fmt::join(axes, ", "));
}

void print_models(const io::Manifest& manifest, bool tensors) {
    std::map<std::string, std::vector<std::string>> kinds;
    for (const io::ShardEntry& file : manifest.files) {
        for (const io::ShardContent& content : file.contents) {
            const std::string kind = fmt::format("{} {}", content.kind, name_of(content.dtype));
            std::vector<std::string>& list = kinds[content.model];
            if (std::ranges::find(list, kind) == list.end()) list.push_back(kind);
        }
    }
    for (const io::SavedModel& model : manifest.models) {
        std::int64_t elements = 0;
        for (const io::SavedParameter& parameter : model.parameters) {
            elements += parameter.shape.size();
        }
        fmt::print("  model {}: {} parameters in {} tensors; {}\n", model.name,
                   count_text(elements), model.parameters.size(),
                   fmt::join(kinds[model.name], ", "));
        if (!tensors) continue;
        for (const io::SavedParameter& parameter : model.parameters) {
            fmt::print("    {:<56} {}\n", parameter.name, to_string(parameter.shape));
        }
    }
}

int inspect_checkpoint(io::FileSystem& fs, const io::Path& path, const Arguments& arguments) {
    const io::Manifest manifest = io::read_manifest(fs, path);
    const io::RunState& state = manifest.state;
    std::int64_t bytes = 0;
    for (const io::ShardEntry& file : manifest.files) bytes += file.bytes;
    fmt::print("checkpoint {}\n", path.string());
    print_fact("stage", state.stage);
    print_fact("step", fmt::format("{}", state.step));
    print_fact("policy version", fmt::format("{} optimizer steps", state.policy_version));
    print_fact("seed", fmt::format("{}", state.seed));
    print_fact("numerics", fmt::format("version {}", state.numerics_version));
    print_fact("digest/options", to_hex(state.options_digest));
    print_fact("written by", mesh_text(state.mesh));
    print_fact("files", fmt::format("{}, {}", manifest.files.size(), size_text(bytes)));
    for (const auto& [name, value] : state.values) {
        const std::string text =
            std::visit([](const auto& held) { return fmt::format("{}", held); }, value);
        print_fact(name, cut_text(printable(text), 60));
    }
    print_models(manifest, arguments.has("tensors"));
    if (arguments.has("options")) fmt::print("\n{}", state.options);
    const io::Check check = arguments.has("verify") ? io::Check::checksums : io::Check::sizes;
    if (const auto problem = io::problem_of(fs, path, check)) {
        throw CorruptFile(
            fmt::format("{}: {}; {}", path.string(), *problem, io::way_out(fs, path)));
    }
    fmt::print("  {}\n", check == io::Check::checksums
                             ? "whole: every checksum holds"
                             : "whole by sizes; --verify reads everything");
    return 0;
}

int inspect_rollouts(io::FileSystem& fs, const io::Path& path) {
    const io::Rollouts rollouts = io::read_rollouts(fs, path);
    const io::RolloutHeader& header = rollouts.header;
    std::int64_t tokens = 0;
    std::int64_t answer_tokens = 0;
    std::map<std::string, std::int64_t> reasons;
    double reward = 0.0;
    for (const Trajectory& trajectory : rollouts.trajectories) {
        tokens += static_cast<std::int64_t>(trajectory.tokens.size());
        answer_tokens += trajectory.answer_size();
        reward += trajectory.reward;
        ++reasons[name_of(trajectory.finish_reason)];
    }
    const auto count = static_cast<double>(std::max<std::size_t>(1, rollouts.trajectories.size()));
    fmt::print("rollouts {}\n", path.string());
    print_fact("stage", header.stage);
    print_fact("step", fmt::format("{}", header.step));
    print_fact("policy version", fmt::format("{}", header.policy_version));
    print_fact("digest/rollouts", to_hex(header.rollouts_digest));
    print_fact("trajectories", count_text(static_cast<std::int64_t>(rollouts.trajectories.size())));
    print_fact("tokens", fmt::format("{}; answers {} long on average", count_text(tokens),
                                     number_text(static_cast<double>(answer_tokens) / count)));
    print_fact("reward", fmt::format("{} on average", number_text(reward / count)));
    for (const auto& [reason, number] : reasons) {
        print_fact(fmt::format("ended: {}", reason), count_text(number));
    }
    if (!rollouts.trajectories.empty()) {
        const Trajectory& first = rollouts.trajectories.front();
        fmt::print("  first answer, reward {}:\n", number_text(first.reward));
        for (const std::string& line : wrap_text(printable(first.text), 76, 8)) {
            fmt::print("    {}\n", line);
        }
    }
    return 0;
}

int inspect_model(const io::Path& path, bool tensors) {
    const io::SafetensorsFolder folder(path);
    std::int64_t elements = 0;
    std::int64_t bytes = 0;
    std::map<std::string, std::int64_t> dtypes;
    for (const std::string& name : folder.names()) {
        const io::SafetensorsEntry& entry = folder.at(name);
        std::int64_t size = 1;
        for (const std::int64_t extent : entry.shape) size *= extent;
        elements += size;
        bytes += static_cast<std::int64_t>(entry.bytes.size());
        ++dtypes[std::string(name_of(entry.dtype))];
    }
    fmt::print("safetensors {}\n", path.string());
    print_fact("parameters", count_text(elements));
    print_fact("bytes", size_text(bytes));
    for (const auto& [dtype, number] : dtypes) {
        print_fact(fmt::format("{} tensors", dtype), count_text(number));
    }
    if (!tensors) return 0;
    for (const std::string& name : folder.names()) {
        const io::SafetensorsEntry& entry = folder.at(name);
        fmt::print("    {:<56} {} [{}]\n", name, name_of(entry.dtype),
                   fmt::join(entry.shape, ", "));
    }
    return 0;
}

int inspect_run(io::FileSystem& fs, const io::Path& path) {
    const RunPaths paths{path};
    const std::vector<MetricRecord> metrics = read_metrics(fs, paths.metrics());
    fmt::print("run {}\n", path.string());
    if (!metrics.empty()) {
        const MetricRecord& last = metrics.back();
        print_fact("last line", fmt::format("stage {}, step {}", last.stage, last.step));
        for (const auto& [name, value] : last.numbers) print_fact("  " + name, number_text(value));
        for (const auto& [name, value] : last.texts) print_fact("  " + name, value);
    }
    for (const std::string& name : fs.list(paths.checkpoints())) {
        if (!io::step_of(name)) continue;
        const auto problem = io::problem_of(fs, paths.checkpoints() / name, io::Check::sizes);
        print_fact("checkpoint", fmt::format("{}  {}", name, problem.value_or("whole by sizes")));
    }
    std::int64_t rollouts = 0;
    for (const std::string& name : fs.list(paths.rollouts())) rollouts += io::step_of(name) ? 1 : 0;
    print_fact("rollouts", fmt::format("{} steps", rollouts));
    return 0;
}

bool has_file_with(io::FileSystem& fs, const io::Path& path, std::string_view start,
                   std::string_view end) {
    if (!std::filesystem::is_directory(path)) return false;
    const std::vector<std::string> names = fs.list(path);
    return std::ranges::any_of(names, [&](const std::string& name) {
        return name.starts_with(start) && name.ends_with(end);
    });
}

}  // namespace

int run_inspect(const Arguments& arguments) {
    const auto fs = io::posix_file_system();
    const io::Path path = arguments.positional.at(0);
    require(fs->exists(path), "{} does not exist", path.string());
    if (fs->exists(path / "metrics.jsonl")) return inspect_run(*fs, path);
    if (has_file_with(*fs, path, "part_", ".h5")) return inspect_rollouts(*fs, path);
    if (fs->exists(path / "manifest.h5") || has_file_with(*fs, path, "shard_", ".h5")) {
        return inspect_checkpoint(*fs, path, arguments);
    }
    if (path.extension() == ".safetensors" || has_file_with(*fs, path, "", ".safetensors")) {
        return inspect_model(path, arguments.has("tensors"));
    }
    throw BadInput(
        fmt::format("{} is neither a run directory (metrics.jsonl), a checkpoint "
                    "(manifest.h5, shard_*.h5), a step of rollouts (part_*.h5) nor a "
                    "model (*.safetensors)",
                    path.string()));
}

}  // namespace rankwise::app
