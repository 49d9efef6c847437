#include "src/app/display.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "src/app/lines_display.hpp"
#include "src/app/live_display.hpp"

namespace rankwise::app {
namespace {

class NoDisplay final : public Display {
  public:
    void begin_stage(const StepView&) override {}
    void step(const StepView&) override {}
    void activity(std::string_view) override {}
    void note(std::string_view) override {}
    void finish() override {}
};

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
}

bool terminal_moves_cursor() {
    const std::string term = environment("TERM");
    return !term.empty() && term != "dumb";
}

/// Open MPI's launcher gives its ranks a pseudo-terminal even where its own output is a file or a
/// pipe. As their parent, or on another node as a daemon without terminal, it can be looked at.
bool launcher_has_terminal() {
    if (environment("OMPI_COMM_WORLD_SIZE").empty()) return true;
    std::error_code error;
    const std::filesystem::path output =
        std::filesystem::read_symlink(fmt::format("/proc/{}/fd/1", getppid()), error);
    return error || output.string().starts_with("/dev/pts/") ||
           output.string().starts_with("/dev/tty");
}

/// 12345.6 → "12,346"
std::string grouped(double value) {
    std::string digits = fmt::format("{:.0f}", value);
    const std::size_t first = digits.starts_with('-') ? 1 : 0;
    for (std::size_t at = digits.size(); at > first + 3;) {
        at -= 3;
        digits.insert(at, ",");
    }
    return digits;
}

}  // namespace

DisplayKind display_kind(std::string_view option, std::FILE* out) {
    if (option == "live") return DisplayKind::live;
    if (option == "lines") return DisplayKind::lines;
    if (option == "off") return DisplayKind::off;
    const bool live =
        isatty(fileno(out)) != 0 && launcher_has_terminal() && terminal_moves_cursor();
    return live ? DisplayKind::live : DisplayKind::lines;
}

Look look_of_environment() {
    std::string locale = environment("LC_ALL");
    if (locale.empty()) locale = environment("LC_CTYPE");
    if (locale.empty()) locale = environment("LANG");
    const bool utf8 =
        locale.find("UTF-8") != std::string::npos || locale.find("utf8") != std::string::npos;
    return {.color = terminal_moves_cursor() && environment("NO_COLOR").empty(), .unicode = utf8};
}

std::unique_ptr<Display> make_display(DisplayKind kind, std::FILE* out,
                                      std::shared_ptr<const Clock> clock, Look look) {
    switch (kind) {
        case DisplayKind::live:
            return std::make_unique<LiveDisplay>(terminal_of(out), std::move(clock), look);
        case DisplayKind::lines:
            return std::make_unique<LinesDisplay>(out, std::move(clock));
        case DisplayKind::off:
            break;
    }
    return std::make_unique<NoDisplay>();
}

std::string duration_text(double seconds) {
    if (!std::isfinite(seconds) || seconds < 0.0) return "?";
    const auto whole = static_cast<std::int64_t>(seconds + 0.5);
    if (whole < 60) return fmt::format("{} s", whole);
    if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
    if (whole < 86400) return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
    return fmt::format("{} d {} h", whole / 86400, whole % 86400 / 3600);
}

std::string number_text(double value) {
    if (!std::isfinite(value)) return fmt::format("{}", value);
    const double size = std::abs(value);
    if (size >= 1e9) return fmt::format("{:.3g}", value);
    if (size >= 1000.0) return grouped(value);
    if (value == std::floor(value)) return fmt::format("{:.0f}", value);
    if (size >= 100.0) return fmt::format("{:.1f}", value);
    if (size >= 10.0) return fmt::format("{:.2f}", value);
    if (size >= 0.001) return fmt::format("{:.3f}", value);
    return fmt::format("{:.1e}", value);
}

std::string short_name(std::string_view metric) {
    static const std::map<std::string_view, std::string_view> names{
        {"completions/mean_length", "length"},
        {"completions/clipped_ratio", "cut off"},
        {"frac_reward_zero_std", "equal groups"},
        {"tokens_per_second", "tokens/s"},
        {"learning_rate", "lr"},
        {"mean_token_accuracy", "token accuracy"},
        {"step_time", "s/step"},
    };
    if (const auto row = names.find(metric); row != names.end()) return std::string(row->second);
    if (metric.starts_with("rewards/")) {
        metric.remove_prefix(8);
        if (metric.ends_with("/mean")) metric.remove_suffix(5);
    }
    return std::string(metric);
}

}  // namespace rankwise::app
