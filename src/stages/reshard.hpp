// A checkpoint written anew as another layout would have written it, without a model run.
#pragma once

#include <functional>

#include "io/checkpoint_reader.hpp"
#include "parallel/mesh.hpp"

namespace rankwise::stages {

/// Writes the checkpoint of `reader` as step_N into `directory`, with a shard for each rank of
/// `shape`: of every model weights and moments of the rows that the rank would save (its tensor
/// part, its share of the data axis). Holds one shard in memory at a time. The state, the run's
/// options among it, is that of the original; a run that loads either goes on to the same bits.
/// @param written  called after each shard with the number of those that are done
/// @return the new checkpoint's path
/// @throws as CheckpointReader; BadInput if a model cannot be split over so many tensor ranks, with
/// the numbers that it can be split over.
io::Path reshard(io::FileSystem& fs, io::CheckpointReader& reader, const io::Path& directory,
                 const parallel::MeshShape& shape,
                 const std::function<void(std::int64_t)>& written = {});

}  // namespace rankwise::stages
