// Saving a run so that a crash at any moment leaves the checkpoint before or the new one, whole.
//
//   one rank    begin_step(fs, dir, step)                       DIR/step_00000120.tmp/
//   every rank  entry = write_shard(fs, tmp, id, rank, items)   shard_00005.h5, synced
//   all         agree that all succeeded; gather encode(entry) at one rank
//   that rank   commit(fs, dir, manifest)                       manifest.h5, sync, rename to
//   step_00000120, LATEST
//
// No function here communicates. Reading is in io/checkpoint_reader.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/fs.hpp"
#include "io/manifest.hpp"
#include "io/shard.hpp"

namespace rankwise::io {

/// "step_00000120"
[[nodiscard]] std::string step_name(std::int64_t step);
/// The step of such a name; nothing for any other name (".tmp" ones too).
[[nodiscard]] std::optional<std::int64_t> step_of(const std::string& name);

/// Puts `dir` in order before a run: removes what unfinished writers left (`*.tmp`) and puts back a
/// checkpoint that was being replaced when a run died. One process calls it, with the run directory
/// locked. @return what was done, a line each.
std::vector<std::string> remove_stale(FileSystem& fs, const Path& dir);

/// Makes `dir`/step_N.tmp, empty, and returns its path. One rank calls it; the others write after
/// it has returned. Used for checkpoints and for rollouts.
[[nodiscard]] Path begin_step(FileSystem& fs, const Path& dir, std::int64_t step);

/// Renames step_N.tmp to step_N, durably. A step_N that is there already is replaced.
/// @return the new path.
Path finish_step(FileSystem& fs, const Path& dir, std::int64_t step);

/// Writes the manifest into step_N.tmp, makes it step_N, and points LATEST to it. @return its path.
Path commit(FileSystem& fs, const Path& dir, const Manifest& manifest);

enum class Check : std::uint8_t {
    sizes,      ///< the manifest by its checksum; shards by presence and size
    checksums,  ///< shards by checksum too: reads everything
};

/// Why the checkpoint at `path` is not whole, in a sentence; nothing if it is.
[[nodiscard]] std::optional<std::string> problem_of(FileSystem& fs, const Path& path, Check check);

struct Found {
    std::optional<Path> path;            ///< newest whole checkpoint
    std::vector<std::string> passed_by;  ///< newer ones that are not, with the reason
};
/// Looks at the newest first. Names that are not step_N are ignored. `at_most`: a step to stop at.
[[nodiscard]] Found find_latest(FileSystem& fs, const Path& dir, Check check,
                                std::optional<std::int64_t> at_most = std::nullopt);

/// "the newest whole checkpoint before it is step 100: resume with --resume.step=100", or that
/// there is none. By checksums, as far as that takes no more than a few seconds, then by sizes,
/// which it says.
[[nodiscard]] std::string way_out(FileSystem& fs, const Path& damaged);

/// Renames the checkpoints in `dir` of steps beyond `step`, whole or not, to step_N.set_aside,
/// which no function here looks at: what a run wrote that now goes on from `step` instead. One that
/// was set aside before under the same name goes. @return what was done, a line each.
std::vector<std::string> set_aside_after(FileSystem& fs, const Path& dir, std::int64_t step);

/// Deletes checkpoints. What stays: the newest `keep_last` (at least 1) that are whole by
/// Check::sizes, damaged ones newer than those, and every step that is a multiple of `keep_every`
/// (0: none). @return the steps deleted, ascending.
std::vector<std::int64_t> prune(FileSystem& fs, const Path& dir, std::int64_t keep_last,
                                std::int64_t keep_every);

}  // namespace rankwise::io
