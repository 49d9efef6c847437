// A checkpoint written anew as another layout would have written it, without a model run.
#pragma once

#include <functional>

#include "io/checkpoint_reader.hpp"
#include "parallel/mesh.hpp"
#include "parallel/pipeline_schedule.hpp"

namespace rankwise::stages {

/// A layout, as [parallel] describes it. What `zero` is changes no file.
struct ReshardLayout {
    parallel::MeshShape shape;
    parallel::Schedule schedule = parallel::Schedule::one_forward_one_backward;
};

/// Writes the checkpoint of `reader` as step_N into `directory`, with a shard for each rank of the
/// layout: of every model the weights and moments that the rank would save, to the byte. Reads
/// these boxes alone, some megabytes of them at a time, and then whatever else its check needs. The
/// state, the run's options among it, is that of the original; a run that loads either goes on to
/// the same bits.
/// @param written  called after each shard with the number of those that are done
/// @return the new checkpoint's path
/// @throws as CheckpointReader; BadInput if a model cannot be dealt to these ranks, with the
/// degrees that it can have.
io::Path reshard(io::FileSystem& fs, io::CheckpointReader& reader, const io::Path& directory,
                 const ReshardLayout& layout,
                 const std::function<void(std::int64_t)>& written = {});

}  // namespace rankwise::stages
