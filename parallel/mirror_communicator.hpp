// A communicator without peers, for planning: every other rank is taken for this one's mirror
// image.
#pragma once

#include <functional>
#include <memory>

#include "parallel/communicator.hpp"
#include "parallel/mesh.hpp"

namespace rankwise::parallel {

/// Says whether an address is of memory that is not there: what should be moved from or to it is
/// left where it is.
using IsAbsent = std::function<bool(const std::byte*)>;

/// The world of `shape`, seen by one of its ranks. Collectives return at once: what others would
/// send is a copy of what this rank sends (as far as it fits), a sum is this rank's value times the
/// ranks. It splits as Mesh does: by the names of the axes. What is sent is counted as anywhere.
[[nodiscard]] std::unique_ptr<Communicator> make_mirror_world(const MeshShape& shape, int rank,
                                                              IsAbsent absent,
                                                              Instruments instruments = {});

}  // namespace rankwise::parallel
