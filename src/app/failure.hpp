// What a person is told of an exception that ends the program.
#pragma once

#include <string>

#include "src/base/error.hpp"

namespace rankwise::app {

struct Failure {
    ExitCode code = ExitCode::internal;
    std::string what;
};

/// Of the exception that is being handled.
[[nodiscard]] Failure current_failure();

/// "[rank 5/16 host:pid phase=update step=1203] what"
[[nodiscard]] std::string error_line(const std::string& identity, const std::string& phase,
                                     long long step, const std::string& what);

/// An error with the rank that it comes from: of ranks that share a process. what() is a whole
/// error_line().
struct RankFailed : Error {
    using Error::Error;
};

}  // namespace rankwise::app
