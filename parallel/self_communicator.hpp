// A world of one rank: every collective is a copy.
#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.hpp"

namespace rankwise::parallel {

/// The communicator of a program that runs alone, without MPI.
[[nodiscard]] std::unique_ptr<Communicator> make_self_communicator(Instruments instruments,
                                                                   std::string name = "world");

}  // namespace rankwise::parallel
