#include "src/base/log.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include "src/base/error.hpp"

namespace rankwise {
namespace {

spdlog::level::level_enum level_of(LogLevel level) {
    switch (level) {
        case LogLevel::debug:
            return spdlog::level::debug;
        case LogLevel::info:
            return spdlog::level::info;
        case LogLevel::warning:
            return spdlog::level::warn;
        case LogLevel::error:
            return spdlog::level::err;
    }
    return spdlog::level::info;
}

}  // namespace

Log::Log(const std::string& path, int rank, LogLevel level) {
    try {
        auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path, false);
        logger_ = std::make_shared<spdlog::logger>(fmt::format("rank {}", rank), std::move(sink));
    } catch (const spdlog::spdlog_ex& problem) {
        throw EnvironmentError(
            fmt::format("cannot open the log file {}: {}", path, problem.what()));
    }
    logger_->set_pattern("%Y-%m-%d %H:%M:%S.%e [%n] %l: %v");
    logger_->set_level(level_of(level));
    logger_->flush_on(spdlog::level::info);
}

void Log::write(LogLevel level, std::string_view line) const {
    if (logger_) logger_->log(level_of(level), spdlog::string_view_t(line.data(), line.size()));
}

void Log::flush() const {
    if (logger_) logger_->flush();
}

}  // namespace rankwise
