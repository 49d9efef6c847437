#include "src/app/run_directory.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "src/base/numerics_version.hpp"

namespace rankwise::app {
namespace {

LogLevel level_of(std::string_view word) {
    if (word == "debug") return LogLevel::debug;
    if (word == "warning") return LogLevel::warning;
    if (word == "error") return LogLevel::error;
    return LogLevel::info;
}

}  // namespace

io::Path RunPaths::log(int rank) const {
    return root / "logs" / fmt::format("rank_{:05}.log", rank);
}

io::Path checkpoint_at(io::FileSystem& fs, const io::Path& path) {
    const RunPaths run{path};
    if (!fs.exists(run.checkpoints())) return path;
    const io::Found found = io::find_latest(fs, run.checkpoints(), io::Check::sizes);
    require(found.path.has_value(), "{} has no whole checkpoint yet", path.string());
    return *found.path;
}

io::Path default_directory(const io::Path& recipe_file) {
    return io::Path("runs") / recipe_file.stem();
}

RunDirectory::RunDirectory(io::FileSystem& fs, io::Path root, Session& session)
    : fs_(fs), paths_{std::move(root)} {
    session.start_on_main([&] {
        fs_.create_directories(paths_.root);
        // First of all: what follows tidies, and must not tidy under a live run.
        lock_ = fs_.lock(paths_.lock());
        for (const io::Path& folder :
             {paths_.log(0).parent_path(), paths_.checkpoints(), paths_.rollouts()}) {
            fs_.create_directories(folder);
        }
        for (const io::Path& folder : {paths_.checkpoints(), paths_.rollouts()}) {
            const std::vector<std::string> done = io::remove_stale(fs_, folder);
            tidied_.insert(tidied_.end(), done.begin(), done.end());
        }
    });
}

std::vector<std::string> refused_changes(std::string_view saved_options, const Recipe& recipe,
                                         const std::vector<std::string>& accepted) {
    std::vector<std::string> lines;
    for (const LogicalDifference& difference :
         logical_differences(logical_text_of(saved_options), recipe.logical_text())) {
        if (std::ranges::find(accepted, difference.key) != accepted.end()) continue;
        lines.push_back(fmt::format("{}: {} in the checkpoint, {} now", difference.key,
                                    difference.saved, difference.current));
    }
    return lines;
}

ResumePoint RunDirectory::choose(const ResumeOptions& resume) const {
    ResumePoint point{.notes = tidied_};
    if (resume.step >= 0) {
        const io::Path path = paths_.checkpoints() / io::step_name(resume.step);
        if (const auto problem = io::problem_of(fs_, path, io::Check::sizes)) {
            throw CorruptFile(
                fmt::format("{}: {}; {}", path.string(), *problem, io::way_out(fs_, path)));
        }
        point.checkpoint = path;
        return point;
    }
    io::Found found = io::find_latest(fs_, paths_.checkpoints(), io::Check::sizes);
    point.checkpoint = found.path;
    if (!found.path && !found.passed_by.empty()) {
        throw CorruptFile(fmt::format(
            "{}: no checkpoint is whole ({}); to begin anew use another --run.directory",
            paths_.checkpoints().string(), fmt::join(found.passed_by, "; ")));
    }
    for (const std::string& passed : found.passed_by) {
        point.notes.push_back(fmt::format("not used: {}", passed));
    }
    return point;
}

void RunDirectory::check_same_logic(const io::Path& checkpoint, const Recipe& recipe,
                                    const ResumeOptions& resume) const {
    const io::Manifest manifest = io::read_manifest(fs_, checkpoint);
    require(manifest.state.numerics_version == kNumericsVersion,
            "{} has numerics version {}, this program {}: its bits would not go on; use the "
            "program that wrote it, or begin anew with another --run.directory",
            checkpoint.string(), manifest.state.numerics_version, kNumericsVersion);
    const std::vector<std::string> changes =
        refused_changes(manifest.state.options, recipe, resume.accept);
    if (changes.empty()) return;
    throw BadInput(fmt::format(
        "{} was made with other options, and going on would mix two runs:\n    {}\n  take the "
        "changes back, or name those that you want in --resume.accept, or begin anew with another "
        "--run.directory",
        checkpoint.string(), fmt::join(changes, "\n    ")));
}

ResumePoint RunDirectory::find_resume(const Recipe& recipe, const ResumeOptions& resume,
                                      Session& session) {
    ResumePoint point;
    session.start_on_main([&] {
        point = choose(resume);
        if (!point.checkpoint) return;
        check_same_logic(*point.checkpoint, recipe, resume);
        if (resume.step < 0) return;
        // Else a later start, and the pruning of what this run saves, would take them for its own.
        for (std::string& line : io::set_aside_after(fs_, paths_.checkpoints(), resume.step))
            point.notes.push_back(std::move(line));
    });
    // All ranks see one file system; rank 0 says which checkpoint.
    std::string path = point.checkpoint ? point.checkpoint->string() : std::string();
    std::vector<std::int64_t> size{static_cast<std::int64_t>(path.size())};
    session.world().broadcast("resume", size, 0);
    path.resize(static_cast<std::size_t>(size[0]));
    session.world().broadcast("resume", path, 0);
    if (!path.empty()) point.checkpoint = path;
    return point;
}

void RunDirectory::write_recipe(const Recipe& recipe, const Session& session) {
    if (session.rank() != 0) return;
    const std::string text = recipe.resolved_text();
    io::replace_file(fs_, paths_.recipe(), io::bytes_of(text));
}

Log RunDirectory::open_log(int rank, std::string_view level) const {
    return Log(paths_.log(rank).string(), rank, level_of(level));
}

}  // namespace rankwise::app
