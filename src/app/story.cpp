#include "src/app/story.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "src/app/terminal_text.hpp"

namespace rankwise::app {
namespace {

/// A column of the table: a metric, or the first of a family such as eval/pass@k.
struct Column {
    std::string_view metric;
    std::string title;
    bool percent = true;
};

/// Evaluations, one a stage (its last), in the order of the stages.
std::vector<const MetricRecord*> last_evaluations(std::span<const MetricRecord> metrics) {
    std::vector<const MetricRecord*> last;
    for (const MetricRecord& record : metrics) {
        if (!record.evaluation) continue;
        const auto same = std::find_if(last.begin(), last.end(), [&](const MetricRecord* other) {
            return other->stage == record.stage;
        });
        if (same == last.end()) {
            last.push_back(&record);
        } else {
            *same = &record;
        }
    }
    return last;
}

std::vector<Column> columns_of(std::span<const MetricRecord* const> rows) {
    static const std::vector<Column> kKnown{
        {"eval/pass@1", "right"},
        {"eval/completions/mean_length", "length", false},
        {"eval/self_corrected", "right after a wrong try"},
        {"eval/format_of_finished", "well formed"},
        {"eval/completions/clipped_ratio", "cut off"},
    };
    std::vector<Column> columns;
    for (const Column& known : kKnown) {
        const bool measured = std::any_of(rows.begin(), rows.end(), [&](const MetricRecord* row) {
            return row->number(known.metric) != nullptr;
        });
        if (measured) columns.push_back(known);
        if (known.metric != "eval/pass@1") continue;
        for (const MetricRecord* row : rows) {
            for (const auto& [name, value] : row->numbers) {
                const bool family =
                    (name.starts_with("eval/pass@") || name.starts_with("eval/cons@")) &&
                    name.find('/', 5) == std::string::npos;
                const bool there =
                    std::any_of(columns.begin(), columns.end(),
                                [&](const Column& column) { return column.metric == name; });
                if (family && !there) columns.push_back({name, name.substr(5)});
            }
        }
    }
    return columns;
}

std::string cell_text(const MetricRecord& row, const Column& column) {
    const double* value = row.number(column.metric);
    if (value == nullptr) return "-";
    return column.percent ? fmt::format("{:.1f} %", 100.0 * *value) : fmt::format("{:.1f}", *value);
}

std::string table(std::span<const MetricRecord* const> rows) {
    const std::vector<Column> columns = columns_of(rows);
    std::size_t first = 5;
    for (const MetricRecord* row : rows) first = std::max(first, row->stage.size());
    std::string text = fmt::format("  {:<{}}", "after", first);
    std::vector<std::size_t> widths;
    for (const Column& column : columns) {
        std::size_t width = column.title.size();
        for (const MetricRecord* row : rows)
            width = std::max(width, cell_text(*row, column).size());
        text += fmt::format("   {:>{}}", column.title, width);
        widths.push_back(width);
    }
    for (const MetricRecord* row : rows) {
        text += fmt::format("\n  {:<{}}", row->stage, first);
        for (std::size_t c = 0; c < columns.size(); ++c)
            text += fmt::format("   {:>{}}", cell_text(*row, columns[c]), widths[c]);
    }
    return text;
}

/// How much a problem's answers tell.
int telling(std::span<const SampleRecord* const> answers) {
    const SampleRecord& last = *answers.back();
    const SampleRecord& before = *answers[answers.size() - 2];
    const bool wrong_before = std::none_of(answers.begin(), answers.end() - 1,
                                           [](const SampleRecord* one) { return one->right; });
    return (last.right ? 4 : 0) + (wrong_before ? 2 : 0) +
           (last.sample.answer.size() > before.sample.answer.size() ? 1 : 0);
}

}  // namespace

std::vector<const SampleRecord*> told_problem(std::span<const SampleRecord> samples) {
    std::vector<std::string_view> prompts;
    std::map<std::string_view, std::vector<const SampleRecord*>> answers;
    for (const SampleRecord& record : samples) {
        if (!record.evaluation) continue;
        std::vector<const SampleRecord*>& of_prompt = answers[record.sample.prompt];
        if (of_prompt.empty()) prompts.push_back(record.sample.prompt);
        if (!of_prompt.empty() && of_prompt.back()->stage == record.stage) {
            of_prompt.back() = &record;
        } else {
            of_prompt.push_back(&record);
        }
    }
    std::vector<const SampleRecord*> best;
    int most = -1;
    for (const std::string_view prompt : prompts) {
        const std::vector<const SampleRecord*>& of_prompt = answers[prompt];
        if (of_prompt.size() < 2) continue;
        const int here = telling(of_prompt);
        if (here <= most) continue;
        most = here;
        best = of_prompt;
    }
    return best;
}

std::string run_story(std::span<const MetricRecord> metrics, std::span<const SampleRecord> samples,
                      std::size_t columns) {
    const std::vector<const MetricRecord*> rows = last_evaluations(metrics);
    if (rows.empty()) return {};
    std::string text = "on problems that it was never trained on:\n" + table(rows);
    const std::vector<const SampleRecord*> told = told_problem(samples);
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
