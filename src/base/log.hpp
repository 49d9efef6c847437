// The log of one rank.
#pragma once

#include <fmt/format.h>

#include <memory>
#include <string>
#include <string_view>

namespace spdlog {
class logger;
}

namespace rankwise {

enum class LogLevel : int { debug, info, warning, error };

/// Lines with a time, the rank and a level, to a file of this rank; warnings and errors also to
/// standard error if asked. A default-constructed log drops everything. Copies share the sink.
class Log {
  public:
    Log() = default;
    /// @throws EnvironmentError if the file cannot be opened.
    Log(const std::string& path, int rank, LogLevel level);

    template <class... Args>
    void debug(fmt::format_string<Args...> format, Args&&... args) const {
        write(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
    }
    template <class... Args>
    void info(fmt::format_string<Args...> format, Args&&... args) const {
        write(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
    }
    template <class... Args>
    void warning(fmt::format_string<Args...> format, Args&&... args) const {
        write(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
    }
    template <class... Args>
    void error(fmt::format_string<Args...> format, Args&&... args) const {
        write(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
    }
    void write(LogLevel level, std::string_view line) const;
    void flush() const;

  private:
    std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace rankwise
