// From the command line to an exit code.
#pragma once

#include <vector>

#include "src/app/command.hpp"

namespace rankwise::app {

/// The whole program. Errors end here: start-up problems are printed once, on rank 0, and all ranks
/// leave in order; a later error is printed as one line of its rank and ends the job at once.
/// @return the exit code
int launch(int argc, char** argv, const std::vector<Command>& commands);

}  // namespace rankwise::app
