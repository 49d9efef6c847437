// A fault that a test plants to see how a run ends: one rank throws, is killed or hangs as it
// enters a phase.
#pragma once

#include <cstdint>
#include <string_view>

#include "src/app/engine_options.hpp"

namespace rankwise::app {

class PlantedFault {
  public:
    /// @param options  outlives this; throw_in = none: no fault
    PlantedFault(const FaultOptions& options, int rank) : options_(options), rank_(rank) {}

    /// Told of each phase that this rank enters.
    /// @throws EnvironmentError if the fault is here and throw_as is error.
    void enter(std::string_view phase, std::int64_t step) const;

  private:
    const FaultOptions& options_;
    int rank_;
};

}  // namespace rankwise::app
