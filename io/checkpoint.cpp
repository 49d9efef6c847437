#include "io/checkpoint.hpp"

#include <algorithm>
#include <charconv>

#include "io/checksum.hpp"

namespace rankwise::io {
namespace {

constexpr std::string_view kPrefix = "step_";
constexpr std::string_view kTemporary = ".tmp";
constexpr std::string_view kReplaced = ".replaced";
constexpr std::string_view kSetAside = ".set_aside";
/// Bytes that are read at most to say which checkpoint is whole: a few seconds. A run that ends on
/// damage has others waiting for it, and must not first read terabytes.
constexpr std::int64_t kReadForAdvice = std::int64_t{4} << 30;

Path with_suffix(const Path& dir, std::int64_t step, std::string_view suffix) {
    return dir / (step_name(step) + std::string(suffix));
}

/// Steps in `dir` that are finished directories, newest first.
std::vector<std::int64_t> steps_in(FileSystem& fs, const Path& dir) {
    std::vector<std::int64_t> steps;
    for (const std::string& name : fs.list(dir)) {
        if (const auto step = step_of(name)) steps.push_back(*step);
    }
    std::sort(steps.rbegin(), steps.rend());
    return steps;
}

std::optional<std::string> problem_of_file(FileSystem& fs, const Path& path,
                                           const ShardEntry& entry, Check check) {
    if (!fs.exists(path)) return fmt::format("{}: the file is missing", path.string());
    const auto file = fs.open(path, OpenMode::read);
    if (const std::int64_t size = file->size(); size != entry.bytes) {
        return fmt::format("{}: {} bytes were written, {} are there", path.string(), entry.bytes,
                           size);
    }
    if (check == Check::sizes) return std::nullopt;
    const UInt128 found = checksum_of(*file);
    if (found == entry.checksum) return std::nullopt;
    return fmt::format("{}: checksum differs (expected {}, found {})", path.string(),
                       to_hex(entry.checksum), to_hex(found));
}

/// The newest checkpoint of which `problem(path)` says nothing.
template <class Problem>
Found newest_without(FileSystem& fs, const Path& dir, std::optional<std::int64_t> at_most,
                     const Problem& problem) {
    Found found;
    for (const std::int64_t step : steps_in(fs, dir)) {
        if (at_most && step > *at_most) continue;
        const Path path = dir / step_name(step);
        if (auto what = problem(path)) {
            found.passed_by.push_back(std::move(*what));
            continue;
        }
        found.path = path;
        break;
    }
    return found;
}

/// Bytes of all shards that a manifest lists; 0 if it cannot be read.
std::int64_t bytes_listed(FileSystem& fs, const Path& path) {
    std::int64_t bytes = 0;
    try {
        for (const ShardEntry& entry : read_manifest(fs, path).files) bytes += entry.bytes;
    } catch (const CorruptFile&) {
        return 0;
    }
    return bytes;
}

}  // namespace

std::string step_name(std::int64_t step) {
    return fmt::format("{}{:08}", kPrefix, step);
}

std::optional<std::int64_t> step_of(const std::string& name) {
    if (!name.starts_with(kPrefix)) return std::nullopt;
    std::int64_t step = 0;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (error != std::errc() || rest != end || step < 0 || name != step_name(step))
        return std::nullopt;
    return step;
}

std::vector<std::string> remove_stale(FileSystem& fs, const Path& dir) {
    std::vector<std::string> done;
    const auto names = fs.list(dir);
    for (const std::string& name : names) {
        if (!name.ends_with(kReplaced)) continue;
        const std::string original = name.substr(0, name.size() - kReplaced.size());
        if (!step_of(original)) continue;
        if (fs.exists(dir / original)) {
            fs.remove_tree(dir / name);
            done.push_back(
                fmt::format("{}: removed, a newer one took its place", (dir / name).string()));
        } else {
            fs.rename(dir / name, dir / original);
            fs.sync_directory(dir);
            done.push_back(fmt::format("{}: put back, what was to replace it was never finished",
                                       (dir / original).string()));
        }
    }
    for (const std::string& name : names) {
        if (!name.ends_with(kTemporary)) continue;
        fs.remove_tree(dir / name);
        done.push_back(fmt::format("{}: removed, it was never finished", (dir / name).string()));
    }
    return done;
}

Path begin_step(FileSystem& fs, const Path& dir, std::int64_t step) {
    const Path path = with_suffix(dir, step, kTemporary);
    fs.remove_tree(path);
    fs.create_directories(path);
    return path;
}

Path finish_step(FileSystem& fs, const Path& dir, std::int64_t step) {
    const Path temporary = with_suffix(dir, step, kTemporary);
    const Path path = dir / step_name(step);
    const Path replaced = with_suffix(dir, step, kReplaced);
    fs.sync_directory(temporary);
    // A directory with files cannot be replaced by one rename; remove_stale() mends a crash between
    // the two.
    const bool replaces = fs.exists(path);
    if (replaces) {
        fs.remove_tree(replaced);
        fs.rename(path, replaced);
    }
    fs.rename(temporary, path);
    fs.sync_directory(dir);
    if (replaces) fs.remove_tree(replaced);
    return path;
}

Path commit(FileSystem& fs, const Path& dir, const Manifest& manifest) {
    const std::int64_t step = manifest.state.step;
    write_manifest(fs, with_suffix(dir, step, kTemporary), manifest);
    Path path = finish_step(fs, dir, step);
    replace_file(fs, dir / "LATEST", bytes_of(step_name(step) + "\n"));
    return path;
}

std::optional<std::string> problem_of(FileSystem& fs, const Path& path, Check check) {
    try {
        const Manifest manifest = read_manifest(fs, path);
        for (const ShardEntry& entry : manifest.files) {
            if (auto problem = problem_of_file(fs, path / entry.file, entry, check)) return problem;
        }
    } catch (const CorruptFile& problem) {
        return problem.what();
    }
    return std::nullopt;
}

Found find_latest(FileSystem& fs, const Path& dir, Check check,
                  std::optional<std::int64_t> at_most) {
    return newest_without(fs, dir, at_most,
                          [&](const Path& path) { return problem_of(fs, path, check); });
}

std::string way_out(FileSystem& fs, const Path& damaged) {
    const auto step = step_of(damaged.filename().string());
    if (step && *step > 0) {
        const Path dir = damaged.has_parent_path() ? damaged.parent_path() : Path(".");
        std::int64_t left = kReadForAdvice;
        bool reads = false;  // the last that was looked at
        const Found found = newest_without(fs, dir, *step - 1, [&](const Path& path) {
            const std::int64_t bytes = bytes_listed(fs, path);
            reads = bytes <= left;
            if (reads) left -= bytes;
            return problem_of(fs, path, reads ? Check::checksums : Check::sizes);
        });
        if (found.path) {
            const auto earlier = step_of(found.path->filename().string()).value_or(0);
            return fmt::format(
                "the newest whole checkpoint before it{} is step {}: resume with --resume.step={}",
                reads ? "" : " (by the sizes of its files)", earlier, earlier);
        }
    }
    return "there is no whole checkpoint before it: start again, or restore the file from a copy";
}

std::vector<std::string> set_aside_after(FileSystem& fs, const Path& dir, std::int64_t step) {
    std::vector<std::string> done;
    for (const std::int64_t later : steps_in(fs, dir)) {
        if (later <= step) break;  // the newest come first
        const Path aside = with_suffix(dir, later, kSetAside);
        fs.remove_tree(aside);
        fs.rename(dir / step_name(later), aside);
        done.push_back(
            fmt::format("{}: set aside, the run goes on from step {}", aside.string(), step));
    }
    if (!done.empty()) fs.sync_directory(dir);
    return done;
}

std::vector<std::int64_t> prune(FileSystem& fs, const Path& dir, std::int64_t keep_last,
                                std::int64_t keep_every) {
    keep_last = std::max<std::int64_t>(keep_last, 1);
    std::int64_t kept = 0;
    std::vector<std::int64_t> deleted;
    for (const std::int64_t step : steps_in(fs, dir)) {
        const Path path = dir / step_name(step);
        if (kept < keep_last) {
            if (!problem_of(fs, path, Check::sizes)) ++kept;
            continue;
        }
        if (keep_every > 0 && step % keep_every == 0) continue;
        // Renamed first: what is half deleted must not look like a checkpoint.
        const Path doomed = with_suffix(dir, step, kTemporary);
        fs.remove_tree(doomed);
        fs.rename(path, doomed);
        fs.remove_tree(doomed);
        deleted.push_back(step);
    }
    if (!deleted.empty()) fs.sync_directory(dir);
    std::reverse(deleted.begin(), deleted.end());
    return deleted;
}

}  // namespace rankwise::io
