#include "src/app/build_facts.hpp"

#include <fmt/format.h>
#include <hdf5.h>
#include <mpi.h>

#include <array>

#include "io/checksum.hpp"
#include "io/fs.hpp"
#include "src/app/commit.hpp"
#include "src/base/uint128.hpp"

namespace rankwise::app {
namespace {

std::string mpi_version() {
    std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
    int size = 0;
    MPI_Get_library_version(text.data(), &size);
    const std::string all(text.data(), static_cast<std::size_t>(size));
    return all.substr(0, all.find(','));  // Open MPI goes on with its whole build
}

std::string hdf5_version() {
    unsigned major = 0;
    unsigned minor = 0;
    unsigned release = 0;
    H5get_libversion(&major, &minor, &release);
    return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace

const BuildFacts& build_facts() {
    static const BuildFacts facts{RANKWISE_VERSION,  RANKWISE_COMMIT, RANKWISE_BUILD_TYPE,
                                  RANKWISE_COMPILER, mpi_version(),   hdf5_version()};
    return facts;
}

std::string binary_digest() {
    try {
        const auto fs = io::posix_file_system();
        return to_hex(io::checksum_of(*fs->open("/proc/self/exe", io::OpenMode::read)));
    } catch (const Error&) {
        return {};
    }
}

}  // namespace rankwise::app
