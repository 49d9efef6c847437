#include "src/app/report_results.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "src/app/chain_chart.hpp"
#include "src/app/chart.hpp"
#include "src/app/evaluations.hpp"
#include "src/app/memory_plan.hpp"
#include "src/app/told_problem.hpp"
#include "src/tasks/behaviour.hpp"
#include "src/tasks/difficulty.hpp"

namespace rankwise::app {
namespace {

/// A stage in the first column: its name, and below it what it is.
std::string stage_cell(std::span<const ChainStage> chain, const std::string& name) {
    const auto place = place_of(chain, name);
    if (!place) return fmt::format("<td>{}</td>", escape_html(name));
    const ChainStage& stage = chain[*place];
    const std::size_t model = model_place(chain, stage.model);
    std::string below = stage.kind;
    if (stage.kind == "evaluate" && stage.from) below = "of " + chain[*stage.from].name;
    std::string badge;
    if (model > 0) {
        badge = fmt::format(" <span class=\"badge\" title=\"{}\">{}</span>",
                            escape_html(stage.shape), escape_html(stage.model));
    }
    return fmt::format("<td class=\"stage m{}\"><b>{}</b>{}<small>{}</small></td>", model,
                       escape_html(name), badge, escape_html(below));
}

/// The class of a row: another model than the first stands apart.
std::string row_class(std::span<const ChainStage> chain, const std::string& name) {
    const auto place = place_of(chain, name);
    const bool other = place && model_place(chain, chain[*place].model) > 0;
    return other ? " class=\"other\"" : "";
}

/// A share as a bar, with its interval as a line over its end.
std::string bar_svg(const Measured& found) {
    constexpr double kLength = 84;
    const auto x = [](double share) { return kLength * std::clamp(share, 0.0, 1.0); };
    std::string svg = fmt::format(
        "<svg class=\"bar\" viewBox=\"0 0 {0} 8\" aria-hidden=\"true\"><path class=\"rule\" "
        "d=\"M0 4H{0}\"/><rect x=\"0\" y=\"1\" width=\"{1:.1f}\" height=\"6\" rx=\"1\"/>",
        kLength, x(found.value));
    if (found.interval) {
        svg += fmt::format(
            "<path class=\"whisker\" d=\"M{0:.1f} 4H{1:.1f}M{0:.1f} 1V7M{1:.1f} "
            "1V7\"/>",
            x(found.interval->first), x(found.interval->second));
    }
    return svg + "</svg>";
}

std::string bounds_text(const Measured& found, const Measure& measure) {
    if (!found.interval) return {};
    const auto text = [&](double value) {
        if (measure.percent) return fmt::format("{:.1f}", 100.0 * value);
        return value_text(value, measure);
    };
    return fmt::format("{}–{}", text(found.interval->first), text(found.interval->second));
}

/// @param title  the column's; where it does not say k, the cell does
std::string cell(const MetricRecord& row, const Measure& measure, std::string_view title) {
    const auto found = measured(row, measure);
    if (!found) return "<td class=\"none\">–</td>";
    std::string below = bounds_text(*found, measure);
    if (title.ends_with(" k"))
        below = fmt::format("of {}{}{}", found->k, below.empty() ? "" : ": ", below);
    return fmt::format("<td>{}{}<small>{}</small></td>", value_text(found->value, measure),
                       measure.metric == "eval/pass@1" ? bar_svg(*found) : "", below);
}

std::string by_difficulty(const MetricRecord& row, std::string_view metric, bool percent) {
    std::string html;
    for (std::size_t d = 0; d < tasks::kDifficulties.size(); ++d) {
        const double* value = row.number(fmt::format("{}/{}", metric, tasks::kDifficulties[d]));
        const std::string text = value == nullptr ? "–"
                                 : percent        ? fmt::format("{:.1f} %", 100.0 * *value)
                                                  : fmt::format("{:.1f}", *value);
        html += fmt::format("<td{}>{}</td>", d == 0 ? " class=\"first\"" : "", text);
    }
    return html;
}

/// An answer with the words in which it looks back marked. Long ones are shown in part at first.
std::string told_text(std::string_view answer) {
    constexpr std::size_t kMostBytes = 900;
    std::string html;
    std::string rest;
    for (std::size_t at = 0; at < answer.size();) {
        std::string& out = at < kMostBytes ? html : rest;
        const std::size_t marker = tasks::marker_at(answer, at, {});
        const std::size_t length = std::max<std::size_t>(marker, 1);
        const std::string text = escape_html(answer.substr(at, length));
        out += marker > 0 ? "<mark>" + text + "</mark>" : text;
        at += length;
        // A character of several bytes stays together.
        while (at < answer.size() && (static_cast<unsigned char>(answer[at]) & 0xC0U) == 0x80U)
            out += answer[at++];
    }
    if (!rest.empty()) html += "<details><summary>the rest</summary>" + rest + "</details>";
    return html;
}

}  // namespace

std::string results_section(std::span<const ChainStage> chain,
                            std::span<const MetricRecord> metrics) {
    const std::vector<const MetricRecord*> rows = last_evaluations(metrics);
    if (rows.empty()) return {};
    const std::vector<Measure> columns = measures_of(rows);
    std::string html =
        "<h2>After each stage</h2>\n<p class=\"sub\">On problems that were never trained on; "
        "small: "
        "95 % intervals over problems. Hover over a title to read what it is.</p>\n<div "
        "class=\"card\"><table class=\"results\">\n<tr><th></th>";
    for (const Measure& column : columns) {
        html += fmt::format("<th title=\"{}\">{}</th>", escape_html(column.help),
                            escape_html(title_of(rows, column)));
    }
    html += "</tr>\n";
    for (const MetricRecord* row : rows) {
        html +=
            fmt::format("<tr{}>{}", row_class(chain, row->stage), stage_cell(chain, row->stage));
        for (const Measure& column : columns) html += cell(*row, column, title_of(rows, column));
        html += "</tr>\n";
    }
    return html + "</table></div>\n";
}

std::string difficulty_section(std::span<const ChainStage> chain,
                               std::span<const MetricRecord> metrics) {
    std::vector<const MetricRecord*> rows = last_evaluations(metrics);
    std::erase_if(rows, [](const MetricRecord* row) {
        return std::none_of(tasks::kDifficulties.begin(), tasks::kDifficulties.end(),
                            [&](std::string_view name) {
                                return row->number(fmt::format("eval/pass@1/{}", name));
                            });
    });
    if (rows.empty()) return {};
    std::string names;
    for (std::size_t d = 0; d < tasks::kDifficulties.size(); ++d) {
        const std::string_view name = tasks::kDifficulties[d];
        const double* problems = rows.back()->number(fmt::format("eval/problems/{}", name));
        names +=
            fmt::format("<th{}>{}<small>{}</small></th>", d == 0 ? " class=\"first\"" : "", name,
                        problems == nullptr ? "" : fmt::format("{:.0f} problems", *problems));
    }
    std::string html = fmt::format(
        "<h2>By difficulty</h2>\n<p class=\"sub\">How often a blind try succeeds: in easy problems "
        "at least one in ten, in medium ones one in twenty, in hard ones one in thirty.</p>\n<div "
        "class=\"card\"><table class=\"results\">\n<tr><th rowspan=\"2\"></th><th colspan=\"4\" "
        "class=\"group\">right</th><th colspan=\"4\" "
        "class=\"group\">length</th></tr>\n<tr>{0}{0}</tr>\n",
        names);
    for (const MetricRecord* row : rows) {
        html += fmt::format("<tr{}>{}{}{}</tr>\n", row_class(chain, row->stage),
                            stage_cell(chain, row->stage), by_difficulty(*row, "eval/pass@1", true),
                            by_difficulty(*row, "eval/completions/mean_length", false));
    }
    return html + "</table></div>\n";
}

std::string told_section(std::span<const ChainStage> chain, std::span<const SampleRecord> samples) {
    const std::vector<const SampleRecord*> told = told_problem(samples, chain);
    if (told.empty()) return {};
    std::string html = fmt::format(
        "<h2>One problem, as answered after each stage</h2>\n<p class=\"sub\">Of those that were "
        "never trained on.</p>\n<div class=\"card told\"><p class=\"prompt\">{}</p>\n",
        escape_html(told.front()->sample.prompt));
    for (const SampleRecord* answer : told) {
        const auto place = place_of(chain, answer->stage);
        const std::size_t model = place ? model_place(chain, chain[*place].model) : 0;
        html += fmt::format(
            "<div class=\"told-row m{}\"><div><b>{}</b>{}<small class=\"{}\">{}</small></div>"
            "<div class=\"text\">{}</div></div>\n",
            model, escape_html(answer->stage),
            model == 0
                ? ""
                : fmt::format(" <span class=\"badge\">{}</span>", escape_html(chain[*place].model)),
            answer->right ? "good" : "bad", answer->right ? "✓ right" : "✗ wrong",
            told_text(answer->sample.answer));
    }
    return html + "</div>\n";
}

std::string memory_section(std::span<const ChainStage> chain,
                           std::span<const MemoryRecord> memory) {
    if (memory.empty()) return {};
    std::string html =
        "<h2>Memory</h2>\n<p class=\"sub\">MB of the rank that took most: planned before the run "
        "began, and the peak that was measured.</p>\n<div class=\"card\"><table "
        "class=\"results\">\n<tr><th></th><th>planned</th><th>measured</th><th>share</th></tr>\n";
    for (const MemoryRecord& stage : memory) {
        const double share = static_cast<double>(stage.peak) / static_cast<double>(stage.planned);
        html += fmt::format("<tr{}>{}<td>{}</td><td>{}</td><td>{:.0f} %</td></tr>\n",
                            row_class(chain, stage.stage), stage_cell(chain, stage.stage),
                            megabytes(stage.planned), megabytes(stage.peak), 100.0 * share);
    }
    return html + "</table></div>\n";
}

std::string traffic_section(std::span<const ChainStage> chain,
                            std::span<const MemoryRecord> memory) {
    std::string html;
    for (const MemoryRecord& stage : memory) {
        for (const TrafficRecord& row : stage.sent) {
            const bool planned = row.planned > 0;
            html += fmt::format(
                "<tr{}>{}<td>{}</td><td>{}</td><td>{}</td><td>{:.3f}</td><td>{}</td></tr>\n",
                row_class(chain, stage.stage), stage_cell(chain, stage.stage),
                escape_html(row.phase), escape_html(row.axis),
                planned ? fmt::format("{:.3f}", static_cast<double>(row.planned) / 1e6) : "–",
                static_cast<double>(row.sent) / 1e6,
                planned ? fmt::format("{:.0f} %", 100.0 * static_cast<double>(row.sent) /
                                                      static_cast<double>(row.planned))
                        : "");
        }
    }
    if (html.empty()) return {};
    return "<h2>Sent</h2>\n<p class=\"sub\">MB that a rank sent in a step, of the rank and step "
           "that sent most, beside the most that was planned before the run began: answers as long "
           "as they may become, every chunk as large as the largest. Other phases (scores, "
           "metrics, digests, checkpoints) are not planned.</p>\n<div class=\"card\"><table "
           "class=\"results\">\n<tr><th></th><th>phase</th><th>axis</th><th>planned</th>"
           "<th>measured</th><th>share</th></tr>\n" +
           html + "</table></div>\n";
}

}  // namespace rankwise::app
