// rankwise version
#include <fmt/format.h>

#include <cstdio>

#include "src/app/build_facts.hpp"
#include "src/app/commands.hpp"
#include "src/base/numerics_version.hpp"

namespace rankwise::app {

int run_version(const Arguments&) {
    const BuildFacts& facts = build_facts();
    fmt::print("rankwise {}\n", facts.version);
    fmt::print("  commit    {}\n", facts.commit.empty() ? "unknown" : facts.commit);
    fmt::print("  build     {}, {}\n", facts.build_type, facts.compiler);
    fmt::print("  MPI       {}\n", facts.mpi);
    fmt::print("  HDF5      {}\n", facts.hdf5);
    fmt::print("  numerics  {}\n", kNumericsVersion);
    fmt::print("  program   {}\n", binary_digest());
    return 0;
}

}  // namespace rankwise::app
