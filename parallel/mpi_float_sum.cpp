#include "parallel/mpi_float_sum.hpp"

#include "parallel/mpi_communicator.hpp"
#include "src/base/checked.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {
namespace {

MPI_Comm handle_of(Communicator& communicator) {
    auto* const mpi = dynamic_cast<MpiCommunicator*>(&communicator);
    ensure(mpi != nullptr, "MPI was to add over \"{}\", which is not its own", communicator.name());
    return mpi->handle();
}

void check_sum(int code, std::string_view what) {
    if (code != MPI_SUCCESS) throw EnvironmentError(fmt::format("{} failed with {}", what, code));
}

}  // namespace

bool is_mpi(const Communicator& communicator) {
    return dynamic_cast<const MpiCommunicator*>(&communicator) != nullptr;
}

void mpi_all_reduce(Communicator& communicator, std::span<const float> from, std::span<float> to) {
    ensure(from.size() == to.size(), "{} floats were to be summed into {}", from.size(), to.size());
    check_sum(MPI_Allreduce(from.data(), to.data(), narrow<int>(from.size()), MPI_FLOAT, MPI_SUM,
                            handle_of(communicator)),
              "MPI_Allreduce");
}

void mpi_reduce_scatter(Communicator& communicator, std::span<const float> from,
                        std::span<float> to) {
    ensure(from.size() == to.size() * static_cast<std::size_t>(communicator.size()),
           "{} floats were to be summed into {} on each of {} ranks", from.size(), to.size(),
           communicator.size());
    check_sum(MPI_Reduce_scatter_block(from.data(), to.data(), narrow<int>(to.size()), MPI_FLOAT,
                                       MPI_SUM, handle_of(communicator)),
              "MPI_Reduce_scatter_block");
}

}  // namespace rankwise::parallel
