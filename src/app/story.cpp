#include "src/app/story.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "src/app/evaluations.hpp"
#include "src/app/terminal_text.hpp"
#include "src/app/told_problem.hpp"

namespace rankwise::app {
namespace {

/// "74.6 % ±1.9"; where the interval has two different halves, the larger one.
std::string cell_text(const MetricRecord& row, const Measure& measure) {
    const auto found = measured(row, measure);
    if (!found) return "-";
    std::string text = value_text(found->value, measure);
    if (found->interval && measure.metric.find('@') != std::string_view::npos) {
        const auto& [low, high] = *found->interval;
        text += fmt::format(" ±{:.1f}", 100.0 * std::max(high - found->value, found->value - low));
    }
    return text;
}

/// As many columns as fit, the most telling first.
std::string table(std::span<const MetricRecord* const> rows, std::size_t columns) {
    std::size_t first = 5;
    for (const MetricRecord* row : rows) first = std::max(first, columns_of(row->stage));
    std::vector<std::string> lines{fmt::format("  {:<{}}", "after", first)};
    for (const MetricRecord* row : rows)
        lines.push_back(fmt::format("  {:<{}}", row->stage, first));
    for (const Measure& measure : measures_of(rows)) {
        const std::string title = title_of(rows, measure);
        std::size_t width = columns_of(title);
        for (const MetricRecord* row : rows)
            width = std::max(width, columns_of(cell_text(*row, measure)));
        if (columns_of(lines.front()) + 3 + width > columns) break;
        lines.front() += fmt::format("   {:>{}}", title, width);
        for (std::size_t r = 0; r < rows.size(); ++r)
            lines[r + 1] += fmt::format("   {:>{}}", cell_text(*rows[r], measure), width);
    }
    return fmt::format("{}", fmt::join(lines, "\n"));
}

}  // namespace

std::string run_story(std::span<const MetricRecord> metrics, std::span<const SampleRecord> samples,
                      std::size_t columns, std::span<const ChainStage> chain) {
    const std::vector<const MetricRecord*> rows = last_evaluations(metrics);
    if (rows.empty()) return {};
    std::string text =
        "on problems that it was never trained on (±: 95 %):\n" + table(rows, columns);
    const std::vector<const SampleRecord*> told = told_problem(samples, chain);
    if (told.empty()) return text;
    text += fmt::format("\none of them, {}", printable(told.front()->sample.prompt));
    constexpr std::size_t kMostLines = 8;
    for (const SampleRecord* answer : told) {
        text += fmt::format("\n  after {} ({}):", answer->stage, answer->right ? "right" : "wrong");
        const std::size_t width = std::max<std::size_t>(columns, 24) - 4;
        for (const std::string& line :
             wrap_text(printable(answer->sample.answer), width, kMostLines))
            text += "\n    " + line;
    }
    return text;
}

}  // namespace rankwise::app
