// For test programs that run on several ranks: the session that their main() (mpi_main.cpp) has
// opened. Such a program links rankwise_parallel.
#pragma once

#include "parallel/mpi_session.hpp"

namespace rankwise::test {

[[nodiscard]] parallel::MpiSession& mpi_session();

}  // namespace rankwise::test
