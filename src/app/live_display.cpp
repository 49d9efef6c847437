#include "src/app/live_display.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "src/app/terminal_text.hpp"

namespace rankwise::app {
namespace {

constexpr double kDrawEvery_s = 0.1;
constexpr double kSampleStays_s = 4.0;
constexpr std::size_t kMostSampleLines = 6;
constexpr std::size_t kCurveColumns = 40;

// Select Graphic Rendition codes.
constexpr std::string_view kBold = "1";
constexpr std::string_view kDim = "2";
constexpr std::string_view kAccent = "36";
constexpr std::string_view kGood = "32";
constexpr std::string_view kBad = "33";

constexpr std::array<std::string_view, 8> kBlocks{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<std::string_view, 8> kAsciiBlocks{"_", "_", ".", ".", "-", "-", "'", "'"};

}  // namespace

Terminal terminal_of(std::FILE* out) {
    return {.write =
                [out](std::string_view bytes) {
                    std::fwrite(bytes.data(), 1, bytes.size(), out);
                    std::fflush(out);
                },
            .size =
                [out] {
                    winsize size{};
                    if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
                        return std::pair<std::size_t, std::size_t>{80, 24};
                    }
                    return std::pair<std::size_t, std::size_t>{size.ws_col, size.ws_row};
                }};
}

LiveDisplay::LiveDisplay(Terminal terminal, std::shared_ptr<const Clock> clock, Look look)
    : terminal_(std::move(terminal)), clock_(std::move(clock)), look_(look) {}

void LiveDisplay::append(Line& line, std::size_t columns, std::string_view text,
                         std::string_view style) const {
    const std::size_t room = columns - std::min(columns, line.columns);
    const std::string cut = cut_text(text, room, look_.unicode ? "…" : "~");
    if (cut.empty()) return;
    line.columns += columns_of(cut);
    line.text += look_.color && !style.empty() ? fmt::format("\x1b[{}m{}\x1b[0m", style, cut) : cut;
}

LiveDisplay::Line LiveDisplay::title(std::size_t columns) const {
    Line line;
    append(line, columns, view_.stage, kBold);
    append(line, columns, fmt::format("  {}", view_.kind), kDim);
    if (view_.stages > 1) {
        append(line, columns, fmt::format("  stage {} of {}", view_.stage_index + 1, view_.stages),
               kDim);
    }
    append(line, columns, fmt::format("  {}", duration_text(clock_->now_s() - start_s_)), kDim);
    if (!activity_.empty()) append(line, columns, fmt::format("  {}", activity_), kAccent);
    return line;
}

LiveDisplay::Line LiveDisplay::bar(std::size_t columns) const {
    const double share =
        view_.steps > 0 ? static_cast<double>(view_.step) / static_cast<double>(view_.steps) : 0.0;
    const double left_s = rate_.seconds_to(view_.steps);
    std::string after = fmt::format("  {}/{}", view_.step, view_.steps);
    if (view_.step < view_.steps && std::isfinite(left_s)) {
        after += fmt::format("  {} left", duration_text(left_s));
    }
    const std::size_t room = columns - std::min(columns, after.size() + 8);
    const std::size_t width = std::min<std::size_t>(room, 40);
    const auto filled = static_cast<std::size_t>(share * static_cast<double>(width) + 0.5);
    const auto repeat = [](std::string_view piece, std::size_t times) {
        std::string text;
        for (std::size_t i = 0; i < times; ++i) text += piece;
        return text;
    };
    Line line;
    append(line, columns, repeat(look_.unicode ? "━" : "#", filled), kAccent);
    append(line, columns, repeat(look_.unicode ? "─" : "-", width - filled), kDim);
    append(line, columns, fmt::format(" {:3.0f} %", 100.0 * share), kBold);
    append(line, columns, after);
    return line;
}

LiveDisplay::Line LiveDisplay::curve(std::size_t columns) const {
    Line line;
    if (history_.size() < 2 || columns < 40) return line;
    const std::size_t width = std::min({kCurveColumns, history_.size(), columns - 36});
    // Each column is the mean of its share of the steps.
    std::vector<double> means(width);
    for (std::size_t i = 0; i < width; ++i) {
        const std::size_t begin = i * history_.size() / width;
        const std::size_t end = (i + 1) * history_.size() / width;
        double sum = 0.0;
        for (std::size_t j = begin; j < end; ++j) sum += history_[j];
        means[i] = sum / static_cast<double>(end - begin);
    }
    const auto [low, high] = std::ranges::minmax(means);
    std::string text;
    for (const double mean : means) {
        const double place = high > low ? (mean - low) / (high - low) : 0.0;
        const auto level = static_cast<std::size_t>(place * 7.0 + 0.5);
        text += look_.unicode ? kBlocks[level] : kAsciiBlocks[level];
    }
    append(line, columns, text, kGood);
    append(line, columns,
           fmt::format("  {} from {} to {}", short_name(view_.metrics.front().first),
                       number_text(history_.front()), number_text(history_.back())),
           kDim);
    return line;
}

void LiveDisplay::add_metrics(std::size_t columns, std::vector<Line>& lines) const {
    constexpr std::size_t kMostLines = 2;
    Line line;
    std::size_t full = 0;
    for (const auto& [name, value] : view_.metrics) {
        const std::string term = short_name(name) + " ";
        const std::string number = number_text(value);
        const std::size_t gap = line.columns == 0 ? 0 : 3;
        if (line.columns + gap + columns_of(term) + number.size() > columns) {
            if (++full == kMostLines) break;
            lines.push_back(std::exchange(line, {}));
        }
        append(line, columns, std::string(line.columns == 0 ? 0 : 3, ' '));
        append(line, columns, term, kDim);
        append(line, columns, number);
    }
    if (line.columns > 0) lines.push_back(std::move(line));
}

void LiveDisplay::add_sample(std::size_t columns, std::size_t rows,
                             std::vector<Line>& lines) const {
    if (!sample_ || lines.size() + 4 > rows || columns < 20) return;
    const std::string_view end = look_.unicode ? "…" : "~";
    lines.emplace_back();
    Line line;
    append(line, columns - 16, printable(sample_->prompt), kBold);
    append(line, columns, fmt::format("  reward {}", number_text(sample_->reward)),
           sample_->reward > 0.5 ? kGood : kBad);
    append(line, columns, fmt::format("  step {}", sample_step_), kDim);
    lines.push_back(std::move(line));
    const std::size_t room = std::min(rows - lines.size() - 1, kMostSampleLines);
    for (const std::string& text : wrap_text(printable(sample_->answer), columns - 2, room, end)) {
        Line answer;
        append(answer, columns, "  ");
        append(answer, columns, text);
        lines.push_back(std::move(answer));
    }
}

std::vector<LiveDisplay::Line> LiveDisplay::lines(std::size_t columns, std::size_t rows) const {
    std::vector<Line> lines{title(columns), bar(columns)};
    if (Line line = curve(columns); line.columns > 0) lines.push_back(std::move(line));
    add_metrics(columns, lines);
    add_sample(columns, rows, lines);
    if (lines.size() > rows) lines.resize(std::max<std::size_t>(rows, 1));
    return lines;
}

/// Moves from the end of what is drawn to its first row.
std::string LiveDisplay::to_top() const {
    if (drawn_.empty()) return {};
    const std::size_t columns = std::max<std::size_t>(terminal_.size().first, 1);
    std::size_t rows = 0;
    for (const std::size_t line : drawn_)
        rows += std::max<std::size_t>(1, (line + columns - 1) / columns);
    return rows > 1 ? fmt::format("\r\x1b[{}A", rows - 1) : "\r";
}

void LiveDisplay::draw() {
    drawn_s_ = clock_->now_s();
    const auto [columns, rows] = terminal_.size();
    // The last column stays free: some terminals wrap as soon as it is written.
    const std::vector<Line> now =
        lines(std::max<std::size_t>(columns, 2) - 1, std::max<std::size_t>(rows, 2) - 1);
    std::string bytes = to_top();
    drawn_.clear();
    for (std::size_t i = 0; i < now.size(); ++i) {
        if (i > 0) bytes += "\r\n";
        bytes += now[i].text + "\x1b[K";
        drawn_.push_back(now[i].columns);
    }
    bytes += "\x1b[J";  // what was longer before
    terminal_.write(bytes);
}

void LiveDisplay::begin_stage(const StepView& first) {
    if (!drawn_.empty()) {  // the stage before stays on the screen
        finish();
        terminal_.write("\r\n");
    }
    view_ = first;
    sample_.reset();
    activity_.clear();
    history_.clear();
    start_s_ = clock_->now_s();
    rate_.begin(first.step, start_s_);
    draw();
}

void LiveDisplay::step(const StepView& view) {
    const double now_s = clock_->now_s();
    rate_.step(view.step, now_s);
    view_ = view;
    if (!view.metrics.empty()) history_.push_back(view.metrics.front().second);
    if (view.sample && (!sample_ || now_s - sample_s_ >= kSampleStays_s)) {
        sample_ = view.sample;
        sample_step_ = view.step;
        sample_s_ = now_s;
    }
    if (now_s - drawn_s_ >= kDrawEvery_s || view.step == view.steps) draw();
}

void LiveDisplay::activity(std::string_view what) {
    if (activity_ == what) return;
    activity_ = what;
    if (!drawn_.empty() && clock_->now_s() - drawn_s_ >= kDrawEvery_s) draw();
}

void LiveDisplay::note(std::string_view text) {
    std::string bytes = to_top() + "\x1b[J";
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        bytes += printable(text.substr(begin, end - begin));
        bytes += "\r\n";
        begin = end + 1;
    }
    terminal_.write(bytes);
    const bool live = !drawn_.empty();
    drawn_.clear();
    if (live) draw();
}

void LiveDisplay::finish() {
    if (drawn_.empty()) return;
    activity_.clear();
    draw();
    terminal_.write("\r\n");
    drawn_.clear();
}

}  // namespace rankwise::app
