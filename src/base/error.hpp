// Errors that end a run, and the exit code each of them ends it with.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace rankwise {

/// Exit codes of the program. Batch scripts act on them, so their values never change.
enum class ExitCode : int {
    done = 0,
    bad_input = 2,     ///< recipe, model folder or input data: mend it and start again
    requeue = 3,       ///< saved; start the same command again to go on
    corrupt_file = 4,  ///< one of our own files is damaged
    bad_numbers = 5,   ///< not finite, a log-probability that differs, nothing to learn from
    environment = 6,   ///< disk, permission, dead rank
    waiting = 7,       ///< waiting for a person
    internal = 70,     ///< a defect of the program
};

/// An error with the exit code it leads to. The message says what was expected, what was found,
/// where, and what to do. Thrown where the problem is found; nothing below `main` catches it except
/// to add context.
class Error : public std::runtime_error {
  public:
    Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
    [[nodiscard]] ExitCode code() const noexcept { return code_; }

  private:
    ExitCode code_;
};

struct BadInput : Error {
    explicit BadInput(const std::string& message) : Error(ExitCode::bad_input, message) {}
};
struct CorruptFile : Error {
    explicit CorruptFile(const std::string& message) : Error(ExitCode::corrupt_file, message) {}
};
struct BadNumbers : Error {
    explicit BadNumbers(const std::string& message) : Error(ExitCode::bad_numbers, message) {}
};
struct EnvironmentError : Error {
    explicit EnvironmentError(const std::string& message) : Error(ExitCode::environment, message) {}
};
struct InternalError : Error {
    explicit InternalError(const std::string& message) : Error(ExitCode::internal, message) {}
};

/// Checks what a caller or an input can break, in every build. Throws BadInput with the formatted
/// message.
template <class... Args>
void require(bool condition, fmt::format_string<Args...> message, Args&&... args) {
    if (!condition) [[unlikely]] {
        throw BadInput(fmt::format(message, std::forward<Args>(args)...));
    }
}

/// The same for a promise between our own parts that is too costly to get wrong in a release build:
/// InternalError.
template <class... Args>
void ensure(bool condition, fmt::format_string<Args...> message, Args&&... args) {
    if (!condition) [[unlikely]] {
        throw InternalError(fmt::format(message, std::forward<Args>(args)...));
    }
}

}  // namespace rankwise
