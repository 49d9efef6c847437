// The manifest of a checkpoint: what it holds and of which run it is. A checkpoint without a whole
// manifest does not exist.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "io/fs.hpp"
#include "io/shard.hpp"
#include "src/base/box.hpp"
#include "src/base/parameter_table.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::io {

inline constexpr std::int64_t kCheckpointFormat = 2;

/// A named scalar of a run's state: cursors, counters, running means. Kept exactly.
using StateValue = std::variant<std::int64_t, double, std::string>;

/// What a run needs besides tensors to go on as if it had never stopped.
struct RunState {
    std::string stage;
    std::int64_t step = 0;  ///< steps done; names the directory
    std::uint64_t seed = 0;
    std::int64_t policy_version = 0;  ///< optimizer steps taken
    std::int64_t numerics_version = 0;
    UInt128 options_digest;                    ///< of the logical options
    std::string options;                       ///< every option as resolved (the recipe's text)
    std::map<std::string, std::int64_t> mesh;  ///< axis name → ranks that wrote
    std::map<std::string, StateValue> values;  ///< data cursor and all else
    friend bool operator==(const RunState&, const RunState&) = default;
};

struct SavedParameter {
    std::string name;
    Shape shape;
    friend bool operator==(const SavedParameter&, const SavedParameter&) = default;
};

/// The parameters of one model of the set, in canonical order.
struct SavedModel {
    std::string name;
    std::vector<SavedParameter> parameters;
    friend bool operator==(const SavedModel&, const SavedModel&) = default;
};

[[nodiscard]] SavedModel saved_model(const std::string& name, const ParameterTable& table);

struct Manifest {
    UInt128 id;
    RunState state;
    std::vector<SavedModel> models;
    std::vector<ShardEntry> files;
    friend bool operator==(const Manifest&, const Manifest&) = default;
};

/// An id that all ranks compute alike: of the options' digest, the seed, the mesh, stage and step.
/// Shards carry it, so that a shard of another run or step is told from a damaged one.
[[nodiscard]] UInt128 checkpoint_id(const RunState& state);

/// Writes and syncs `directory`/manifest.h5: an HDF5 file behind a 512-byte text header with the
/// XXH3-128 of what follows.
/// @throws InternalError if a parameter of some model and kind is saved at all but not exactly once
/// everywhere.
void write_manifest(FileSystem& fs, const Path& directory, const Manifest& manifest);

/// @throws CorruptFile if it is absent, cut short or altered; BadInput if its format is newer than
/// kCheckpointFormat.
[[nodiscard]] Manifest read_manifest(FileSystem& fs, const Path& directory);

/// The hash of the manifest as it lies there, which has every shard's checksum: two checkpoints
/// with the same one hold the same. @throws EnvironmentError if it cannot be read
[[nodiscard]] UInt128 manifest_digest(FileSystem& fs, const Path& directory);

}  // namespace rankwise::io
