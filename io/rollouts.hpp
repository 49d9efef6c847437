// Rollout files: the trajectories of a step, as DESIGN §4 lays them out, for replay and for h5py.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/fs.hpp"
#include "src/base/trajectory.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::io {

/// Attributes of every rollout file.
struct RolloutHeader {
    std::string stage;
    std::int64_t step = 0;
    std::uint64_t seed = 0;
    std::int64_t policy_version = 0;
    UInt128 options_digest;
    UInt128 rollouts_digest;
    friend bool operator==(const RolloutHeader&, const RolloutHeader&) = default;
};

/// What the step's manifest says of a part; plain numbers, so that ranks can gather it.
struct RolloutPart {
    std::int64_t index = 0;
    std::int64_t trajectories = 0;
    std::int64_t bytes = 0;
    UInt128 checksum;
    friend bool operator==(const RolloutPart&, const RolloutPart&) = default;
};

struct Rollouts {
    RolloutHeader header;
    std::vector<Trajectory> trajectories;  ///< parts ascending, then as written
};

/// Writes part_NNNNN.h5 into `directory` (from begin_step of io/checkpoint.hpp): flat `tokens` and
/// `logprobs` with `offsets`; one value a trajectory in `prompt_id`, `group`, `sample`, `parent`,
/// `reward`, `advantage`, `finish_reason` (code; attribute "codes" names them), `text`; `values`
/// with `value_offsets`; `segments/…` with `segments/offsets`; `scores/NAME/{trajectory, position,
/// value, begin, end, status}`.
/// @throws InternalError if a trajectory has another number of log-probabilities than tokens, or a
/// score's name is empty or
///         has a '/'.
[[nodiscard]] RolloutPart write_rollout_part(FileSystem& fs, const Path& directory,
                                             std::int64_t index, const RolloutHeader& header,
                                             std::span<const Trajectory> trajectories);

/// Lists the parts in `dir`/step_N.tmp/manifest.h5 and makes it step_N. @return its path.
Path commit_rollouts(FileSystem& fs, const Path& dir, const RolloutHeader& header,
                     std::span<const RolloutPart> parts);

/// All trajectories of the step at `path`, equal (==) to those written.
/// @throws CorruptFile if a part is missing, altered, cut short or of another step; BadInput if the
/// format is newer.
[[nodiscard]] Rollouts read_rollouts(FileSystem& fs, const Path& path);

}  // namespace rankwise::io
