#include "src/app/lines_display.hpp"

#include <fmt/format.h>

#include "src/app/terminal_text.hpp"

namespace rankwise::app {
namespace {

constexpr double kLineEvery_s = 2.0;
constexpr double kSampleEvery_s = 30.0;
constexpr double kLongAgo_s = -1e9;

}  // namespace

LinesDisplay::LinesDisplay(std::FILE* out, std::shared_ptr<const Clock> clock)
    : out_(out), clock_(std::move(clock)), printed_s_(kLongAgo_s), sample_s_(kLongAgo_s) {}

void LinesDisplay::print(std::string_view line) {
    std::fwrite(line.data(), 1, line.size(), out_);
    std::fputc('\n', out_);
    std::fflush(out_);
}

void LinesDisplay::begin_stage(const StepView& first) {
    rate_.begin(first.step, clock_->now_s());
    printed_s_ = kLongAgo_s;
    const std::string from =
        first.step > 0 ? fmt::format(", going on after step {}", first.step) : std::string();
    print(fmt::format("stage {} of {}: {} ({}), {} steps{}", first.stage_index + 1, first.stages,
                      first.stage, first.kind, first.steps, from));
}

void LinesDisplay::step(const StepView& view) {
    const double now_s = clock_->now_s();
    rate_.step(view.step, now_s);
    const bool last = view.step == view.steps;
    if (last || now_s - printed_s_ >= kLineEvery_s) {
        printed_s_ = now_s;
        std::string line = fmt::format("{} {}/{}", view.stage, view.step, view.steps);
        for (const auto& [name, value] : view.metrics) {
            line += fmt::format("  {} {}", short_name(name), number_text(value));
        }
        if (!last) line += fmt::format("  ETA {}", duration_text(rate_.seconds_to(view.steps)));
        print(line);
    }
    if (view.sample && now_s - sample_s_ >= kSampleEvery_s) {
        sample_s_ = now_s;
        print(fmt::format("  {}  reward {}", cut_text(printable(view.sample->prompt), 200),
                          number_text(view.sample->reward)));
        print(fmt::format("    {}", cut_text(printable(view.sample->answer), 600)));
    }
}

void LinesDisplay::activity(std::string_view) {}

void LinesDisplay::note(std::string_view text) {
    print(text);
}

void LinesDisplay::finish() {
    std::fflush(out_);
}

}  // namespace rankwise::app
