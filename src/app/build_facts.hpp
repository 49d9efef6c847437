// What is known about this program's making.
#pragma once

#include <string>

namespace rankwise::app {

struct BuildFacts {
    std::string version;  ///< "0.1.0"
    std::string
        commit;  ///< git describe of the sources when they were built; empty outside a clone
    std::string build_type;  ///< "Release"
    std::string compiler;    ///< "GNU 12.2.0"
    std::string mpi;         ///< library version, known without starting MPI
    std::string hdf5;        ///< version of the library that is loaded
};
[[nodiscard]] const BuildFacts& build_facts();

/// XXH3-128 of the running program's file, as hexadecimal: finds ranks with other binaries.
/// Empty where the system does not show the file.
[[nodiscard]] std::string binary_digest();

}  // namespace rankwise::app
