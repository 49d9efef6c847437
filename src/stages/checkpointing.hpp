// Saving and restoring a stage: models' weights and optimizers' moments as boxes, scalars in the
// manifest.
#pragma once

#include <string>

#include "io/checkpoint.hpp"
#include "io/checkpoint_reader.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::stages {

/// Kinds of saved tensors.
inline constexpr const char* kWeightsKind = "weights";
inline constexpr const char* kFirstMomentKind = "adam_m";
inline constexpr const char* kSecondMomentKind = "adam_v";

/// Collective. Every data rank writes the rows that it owns (the same whatever `zero` is); data
/// rank 0 commits.
/// @param state  what the run knows of itself; the stage's own scalars are added
/// @return the checkpoint's path, on data rank 0
io::Path save_checkpoint(io::FileSystem& fs, const io::Path& directory,
                         const Environment& environment, Stage& stage, io::RunState state);

/// Reads one model's weights, whatever layout wrote them, and packs. Every rank reads for itself.
/// @throws CorruptFile, BadInput as CheckpointReader.
void load_weights(io::CheckpointReader& reader, const std::string& name, model::Weights& weights,
                  model::Compute& compute);

/// Puts a stage that was just made into the state that `reader` holds: its models, optimizers and
/// scalars.
void restore_stage(io::CheckpointReader& reader, const Environment& environment, Stage& stage);

}  // namespace rankwise::stages
