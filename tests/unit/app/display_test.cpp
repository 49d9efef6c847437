#include "src/app/display.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "src/app/lines_display.hpp"
#include "src/app/live_display.hpp"
#include "src/app/rate.hpp"
#include "src/app/terminal_text.hpp"
#include "tests/support/hand_clock.hpp"

namespace rankwise::app {
namespace {

using test::HandClock;
using testing::HasSubstr;
using testing::Not;

/// A terminal of so many columns that follows what is written: enough of a VT100 for what the
/// display uses (carriage return, line feed, cursor up, clear to the end of line and of screen).
class FakeTerminal {
  public:
    std::size_t columns = 80;
    std::size_t rows = 24;
    int writes = 0;

    Terminal terminal() {
        return {.write = [this](std::string_view bytes) { write(bytes); },
                .size =
                    [this] {
                        return std::pair{columns, rows};
                    }};
    }
    [[nodiscard]] std::string screen() const {
        std::string all;
        for (const std::string& line : lines_) all += line + "\n";
        return all;
    }

  private:
    void write(std::string_view bytes) {
        ++writes;
        for (std::size_t at = 0; at < bytes.size();) {
            if (bytes[at] == '\x1b') {
                const std::size_t end = bytes.find_first_of("ABCDJKm", at);
                const std::string number(bytes.substr(at + 2, end - at - 2));
                if (bytes[end] == 'A') row_ -= std::stoul(number);
                if (bytes[end] == 'K') lines_[row_].resize(column_);
                if (bytes[end] == 'J') {
                    lines_.resize(row_ + 1);
                    lines_[row_].resize(column_);
                }
                at = end + 1;
            } else if (bytes[at] == '\r') {
                column_ = 0;
                ++at;
            } else if (bytes[at] == '\n') {
                if (++row_ == lines_.size()) lines_.emplace_back();
                ++at;
            } else {
                // Tests print ASCII where columns matter.
                std::string& line = lines_[row_];
                if (line.size() <= column_) line.resize(column_ + 1, ' ');
                line[column_++] = bytes[at++];
            }
        }
    }
    std::vector<std::string> lines_ = std::vector<std::string>(1);
    std::size_t row_ = 0;
    std::size_t column_ = 0;
};

StepView view_of(std::int64_t step, double reward) {
    return {.stage = "zero",
            .kind = "grpo",
            .stages = 2,
            .step = step,
            .steps = 100,
            .metrics = {{"reward", reward}, {"completions/mean_length", 96.0}}};
}

constexpr Look kPlain{.color = false, .unicode = false};

TEST(LiveDisplay, RedrawsInPlaceWithOneWriteADraw) {
    FakeTerminal terminal;
    const auto clock = std::make_shared<HandClock>();
    LiveDisplay display(terminal.terminal(), clock, kPlain);
    display.begin_stage(view_of(0, 0.0));
    for (int step = 1; step <= 50; ++step) {
        clock->now += 2.0;
        const int before = terminal.writes;
        display.step(view_of(step, 0.01 * step));
        EXPECT_EQ(terminal.writes, before + 1);
    }
    const std::string screen = terminal.screen();
    EXPECT_THAT(screen, HasSubstr("zero  grpo  stage 1 of 2  1 min 40 s"));
    EXPECT_THAT(screen, HasSubstr("50 %  50/100  1 min 40 s left"));
    EXPECT_THAT(screen, HasSubstr("reward from 0.010 to 0.500"));
    EXPECT_THAT(screen, HasSubstr("reward 0.500   length 96"));
    // Nothing of earlier draws is left.
    EXPECT_THAT(screen, Not(HasSubstr("49/100")));
    EXPECT_EQ(std::ranges::count(screen, '\n'), 4);
}

TEST(LiveDisplay, DrawsAtMostTenTimesASecondButAlwaysTheLastStep) {
    FakeTerminal terminal;
    const auto clock = std::make_shared<HandClock>();
    LiveDisplay display(terminal.terminal(), clock, kPlain);
    display.begin_stage(view_of(0, 0.0));
    const int before = terminal.writes;
    for (int step = 1; step <= 99; ++step) {
        clock->now += 0.001;
        display.step(view_of(step, 0.5));
    }
    EXPECT_EQ(terminal.writes, before);
    display.step(view_of(100, 0.5));
    EXPECT_EQ(terminal.writes, before + 1);
    EXPECT_THAT(terminal.screen(), HasSubstr("100/100"));
}

TEST(LiveDisplay, NotesStayAboveTheLivePart) {
    FakeTerminal terminal;
    const auto clock = std::make_shared<HandClock>();
    LiveDisplay display(terminal.terminal(), clock, kPlain);
    display.begin_stage(view_of(0, 0.0));
    display.note("evaluation\npass@1 0.41");
    clock->now += 1.0;
    display.step(view_of(1, 0.5));
    display.finish();
    const std::string screen = terminal.screen();
    EXPECT_TRUE(screen.starts_with("evaluation\npass@1 0.41\nzero  grpo")) << screen;
    EXPECT_TRUE(screen.ends_with("\n\n")) << screen;  // the cursor is on a line of its own
}

TEST(LiveDisplay, LinesFitIntoANarrowTerminalAndAfterItWasMadeNarrower) {
    FakeTerminal terminal;
    const auto clock = std::make_shared<HandClock>();
    LiveDisplay display(terminal.terminal(), clock, kPlain);
    display.begin_stage(view_of(0, 0.0));
    for (const std::size_t columns : {80U, 40U, 20U, 5U, 1U}) {
        FakeTerminal fresh;
        fresh.columns = columns;
        LiveDisplay narrow(fresh.terminal(), clock, kPlain);
        narrow.begin_stage(view_of(0, 0.0));
        clock->now += 1.0;
        StepView view = view_of(1, 0.5);
        view.sample = SampleView{"7,3->10", "because 7+3=10 and nothing else is", 1.0};
        narrow.step(view);
        std::istringstream lines(fresh.screen());
        for (std::string line; std::getline(lines, line);) {
            EXPECT_LT(line.size(), std::max<std::size_t>(columns, 2)) << columns;
        }
    }
}

TEST(LiveDisplay, AnswersAreShownWithTheirRewardAndControlCharactersAreHarmless) {
    FakeTerminal terminal;
    const auto clock = std::make_shared<HandClock>();
    LiveDisplay display(terminal.terminal(), clock, kPlain);
    display.begin_stage(view_of(0, 0.0));
    clock->now += 1.0;
    StepView view = view_of(7, 0.5);
    view.sample = SampleView{"7,3->10", "7+3\n\x1b[2Jok", 1.2};
    display.step(view);
    EXPECT_THAT(terminal.screen(), HasSubstr("7,3->10  reward 1.200  step 7\n  7+3  [2Jok\n"));
}

TEST(LinesDisplay, PrintsTheFirstAndLastStepAndFewBetween) {
    char* bytes = nullptr;
    std::size_t size = 0;
    std::FILE* out = open_memstream(&bytes, &size);
    const auto clock = std::make_shared<HandClock>();
    LinesDisplay display(out, clock);
    display.begin_stage(view_of(0, 0.0));
    for (int step = 1; step <= 100; ++step) {
        clock->now += 0.5;
        display.step(view_of(step, 0.5));
    }
    display.finish();
    std::fclose(out);
    const std::string text(bytes, size);
    std::free(bytes);
    EXPECT_TRUE(
        text.starts_with("stage 1 of 2: zero (grpo), 100 steps\n"
                         "zero 1/100  reward 0.500  length 96  ETA 50 s\n"))
        << text;
    EXPECT_TRUE(text.ends_with("zero 100/100  reward 0.500  length 96\n")) << text;
    EXPECT_EQ(std::ranges::count(text, '\n'), 1 + 25 + 1);
    EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(Display, KindFollowsTheOptionAndFilesGetLines) {
    std::FILE* file = std::tmpfile();
    EXPECT_EQ(display_kind("auto", file), DisplayKind::lines);
    EXPECT_EQ(display_kind("live", file), DisplayKind::live);
    EXPECT_EQ(display_kind("off", file), DisplayKind::off);
    EXPECT_EQ(display_kind("lines", stdout), DisplayKind::lines);
    std::fclose(file);
}

TEST(Rate, EstimatesFromTheLatestSteps) {
    Rate rate;
    EXPECT_TRUE(std::isnan(rate.seconds_to(10)));
    rate.begin(5, 0.0);
    EXPECT_TRUE(std::isnan(rate.seconds_to(10)));
    rate.step(7, 4.0);
    EXPECT_EQ(rate.seconds_per_step(), 2.0);
    EXPECT_EQ(rate.seconds_to(10), 6.0);
}

TEST(DisplayText, DurationsAndNumbersAreShort) {
    EXPECT_EQ(duration_text(8.2), "8 s");
    EXPECT_EQ(duration_text(200), "3 min 20 s");
    EXPECT_EQ(duration_text(7500), "2 h 05 min");
    EXPECT_EQ(duration_text(356400), "4 d 3 h");
    EXPECT_EQ(duration_text(std::numeric_limits<double>::quiet_NaN()), "?");
    EXPECT_EQ(number_text(0.73412), "0.734");
    EXPECT_EQ(number_text(12345.6), "12,346");
    EXPECT_EQ(number_text(-1234567.0), "-1,234,567");
    EXPECT_EQ(number_text(1.234e-5), "1.2e-05");
    EXPECT_EQ(number_text(64), "64");
    EXPECT_EQ(short_name("completions/mean_length"), "length");
    EXPECT_EQ(short_name("rewards/accuracy/mean"), "accuracy");
    EXPECT_EQ(short_name("kl"), "kl");
}

TEST(TerminalText, WideCharactersTakeTwoColumnsAndCombiningMarksNone) {
    EXPECT_EQ(columns_of("abc"), 3U);
    EXPECT_EQ(columns_of("日本"), 4U);
    EXPECT_EQ(columns_of("e\u0301"), 1U);
    EXPECT_EQ(cut_text("日本語", 4), "日…");
    EXPECT_EQ(cut_text("abc", 3), "abc");
    EXPECT_EQ(cut_text("abcd", 3), "ab…");
    EXPECT_EQ(printable("a\tb\x1b\xff"), "a b \uFFFD");
}

TEST(TerminalText, WrapsAtSpacesAndMarksWhatWasCut) {
    using Lines = std::vector<std::string>;
    EXPECT_EQ(wrap_text("one two three", 8, 5), (Lines{"one two", "three"}));
    EXPECT_EQ(wrap_text("one two three", 8, 1), (Lines{"one two…"}));
    EXPECT_EQ(wrap_text("abcdefghij", 4, 5), (Lines{"abcd", "efgh", "ij"}));
    EXPECT_EQ(wrap_text("", 4, 5), Lines{});
    EXPECT_EQ(wrap_text("日", 1, 3), (Lines{"日"}));
}

}  // namespace
}  // namespace rankwise::app
