// The trajectories of a step, written by the ranks that have them.
#pragma once

#include <span>

#include "io/rollouts.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::stages {

/// Writes `dir`/step_N, one part a data rank (tensor ranks have the same: the first writes).
/// Collective over all ranks; returns when the files are whole.
void write_rollouts(io::FileSystem& fs, const io::Path& dir, const parallel::Mesh& mesh,
                    const io::RolloutHeader& header, std::span<const Trajectory> mine);

}  // namespace rankwise::stages
