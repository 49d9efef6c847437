// A file with the whole tensors of a checkpoint, for h5py and h5dump, that copies no data.
#pragma once

#include <string>

#include "io/fs.hpp"

namespace rankwise::io {

/// Writes `output` with a virtual dataset per parameter of `model`: "NAME" for the weights,
/// "KIND/NAME" for all else saved.
/// `h5py.File("model.h5")["model.layers.0.self_attn.q_proj.weight"]` is then the whole tensor; its
/// parts are read from the shards, which are named relative to `output`. Element types as in shards
/// (attribute "dtype" has the name).
/// @throws as CheckpointReader; BadInput if there is no such model (lists those there are).
void build_view(FileSystem& fs, const Path& checkpoint, const std::string& model,
                const Path& output);

}  // namespace rankwise::io
