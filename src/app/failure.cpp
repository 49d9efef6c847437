#include "src/app/failure.hpp"

#include <fmt/format.h>

#include <exception>
#include <new>

namespace rankwise::app {

Failure current_failure() {
    try {
        throw;
    } catch (const Error& error) {
        return {error.code(), error.what()};
    } catch (const std::bad_alloc&) {
        return {ExitCode::environment,
                "out of memory; use more ranks or nodes, or a smaller generation batch"};
    } catch (const std::exception& error) {
        return {ExitCode::internal, fmt::format("defect of the program: {}", error.what())};
    } catch (...) {
        return {ExitCode::internal, "defect of the program: an unknown exception"};
    }
}

std::string error_line(const std::string& identity, const std::string& phase, long long step,
                       const std::string& what) {
    return fmt::format("[{} phase={} step={}] {}", identity, phase, step, what);
}

}  // namespace rankwise::app
