// MPI's own sums of floats. For measuring only: no run adds with them, as their order is MPI's
// (NUMERICS N10); `rankwise bench` shows them beside ours.
#pragma once

#include <span>

#include "parallel/communicator.hpp"

namespace rankwise::parallel {

/// Whether a communicator is MPI's, with which alone the others may be called.
[[nodiscard]] bool is_mpi(const Communicator& communicator);

/// Collective. Element by element over the ranks: every rank gets the whole sum.
/// @throws InternalError if the sizes differ, or one message cannot carry them.
void mpi_all_reduce(Communicator& communicator, std::span<const float> from, std::span<float> to);

/// Collective. The same where each rank gets one of as many blocks as there are ranks, all of the
/// size of `to`, in their order.
void mpi_reduce_scatter(Communicator& communicator, std::span<const float> from,
                        std::span<float> to);

}  // namespace rankwise::parallel
