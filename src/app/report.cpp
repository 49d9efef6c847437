#include "src/app/report.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "src/app/chart.hpp"
#include "src/app/report_style.hpp"

namespace rankwise::app {
namespace {

constexpr std::size_t kMostCharts = 15;
constexpr std::size_t kMostProblems = 6;
constexpr std::size_t kColors = 7;

/// Metrics in the order in which a reader wants them; others follow as written. A name that ends in
/// '/' stands for all that begin with it.
constexpr std::array<std::string_view, 20> kOrder{"reward",
                                                  "rewards/",
                                                  "loss",
                                                  "mean_token_accuracy",
                                                  "completions/mean_length",
                                                  "completions/clipped_ratio",
                                                  "entropy",
                                                  "kl",
                                                  "reward_std",
                                                  "frac_reward_zero_std",
                                                  "grad_norm",
                                                  "clip_ratio/region_mean",
                                                  "learning_rate",
                                                  "tokens_per_second",
                                                  "step_time",
                                                  "num_tokens",
                                                  "completions/",
                                                  "clip_ratio/",
                                                  "sampling/",
                                                  "time/"};

std::size_t place_of(std::string_view name) {
    // The whole name counts before a family.
    for (std::size_t i = 0; i < kOrder.size(); ++i) {
        if (kOrder[i] == name) return i;
    }
    for (std::size_t i = 0; i < kOrder.size(); ++i) {
        if (kOrder[i].ends_with('/') && name.starts_with(kOrder[i])) return i;
    }
    return kOrder.size();
}

std::vector<std::string> stages_of(const std::vector<MetricRecord>& metrics) {
    std::vector<std::string> stages;
    for (const MetricRecord& record : metrics) {
        if (std::ranges::find(stages, record.stage) == stages.end()) {
            stages.push_back(record.stage);
        }
    }
    return stages;
}

/// Names of the numbers of some records, in the order in which they first appear.
std::vector<std::string> names_of(const std::vector<const MetricRecord*>& records) {
    std::vector<std::string> names;
    std::set<std::string> seen;
    for (const MetricRecord* record : records) {
        for (const auto& number : record->numbers) {
            if (seen.insert(number.first).second) names.push_back(number.first);
        }
    }
    return names;
}

std::vector<const MetricRecord*> records_of(const std::vector<MetricRecord>& metrics,
                                            std::string_view stage, bool evaluation) {
    std::vector<const MetricRecord*> records;
    for (const MetricRecord& record : metrics) {
        if (record.stage == stage && record.evaluation == evaluation) records.push_back(&record);
    }
    return records;
}

Chart chart_of(const std::vector<const MetricRecord*>& records, const std::string& name,
               bool markers) {
    Chart chart{.title = name, .markers = markers};
    for (const MetricRecord* record : records) {
        const double* value = record->number(name);
        if (value != nullptr && std::isfinite(*value)) {
            chart.points.emplace_back(static_cast<double>(record->step), *value);
        }
    }
    return chart;
}

bool is_flat(const Chart& chart) {
    return std::ranges::all_of(chart.points, [&chart](const auto& point) {
        return point.second == chart.points.front().second;
    });
}

// ---- evaluations, before and after

/// For each stage its first and its last evaluation.
std::vector<const MetricRecord*> milestones(const std::vector<MetricRecord>& metrics) {
    std::vector<const MetricRecord*> chosen;
    for (const std::string& stage : stages_of(metrics)) {
        const auto records = records_of(metrics, stage, true);
        if (records.empty()) continue;
        chosen.push_back(records.front());
        if (records.size() > 1) chosen.push_back(records.back());
    }
    return chosen;
}

std::string evaluation_table(const std::vector<MetricRecord>& metrics) {
    const auto columns = milestones(metrics);
    if (columns.empty()) return {};
    std::string html =
        "<h2>Before and after</h2>\n<p class=\"sub\">On problems that were never trained on: the "
        "first and the last evaluation of each stage.</p>\n<div "
        "class=\"card\"><table>\n<tr><th></th>";
    for (const MetricRecord* column : columns) {
        html += fmt::format("<th>{}<br>step {}</th>", escape_html(column->stage), column->step);
    }
    html += "</tr>\n";
    for (const std::string& name : names_of(columns)) {
        if (!name.starts_with("eval/")) continue;
        html += fmt::format("<tr><td>{}</td>", escape_html(name.substr(5)));
        const double* first = nullptr;
        for (const MetricRecord* column : columns) {
            const double* value = column->number(name);
            const bool last = column == columns.back();
            html += fmt::format("<td{}>", last ? " class=\"last\"" : "");
            if (value != nullptr) html += number_text(*value);
            if (last && value != nullptr && first != nullptr && *first != *value) {
                html += fmt::format(" <span class=\"change\">from {}</span>", number_text(*first));
            }
            html += "</td>";
            if (first == nullptr) first = value;
        }
        html += "</tr>\n";
    }
    return html + "</table></div>\n";
}

// ---- one stage

std::string time_shares(const std::vector<const MetricRecord*>& records) {
    std::vector<std::pair<std::string, double>> totals;
    double all = 0.0;
    for (const std::string& name : names_of(records)) {
        if (!name.starts_with("time/")) continue;
        double total = 0.0;
        for (const MetricRecord* record : records) {
            const double* value = record->number(name);
            if (value != nullptr && std::isfinite(*value)) total += *value;
        }
        if (total > 0.0) totals.emplace_back(name.substr(5), total);
        all += total;
    }
    if (all <= 0.0) return {};
    std::ranges::stable_sort(totals, std::greater{}, &std::pair<std::string, double>::second);
    std::string bar;
    std::string legend;
    for (std::size_t i = 0; i < totals.size(); ++i) {
        const auto& [name, total] = totals[i];
        const std::size_t color = std::min(i, kColors - 1);
        bar += fmt::format("<span class=\"c{}\" style=\"width:{:.2f}%\" title=\"{}\"></span>",
                           color, 100.0 * total / all, escape_html(name));
        legend += fmt::format("<span><i class=\"c{}\"></i>{} {:.0f} %</span>", color,
                              escape_html(name), 100.0 * total / all);
    }
    return fmt::format(
        "<div class=\"card\" style=\"margin-bottom:14px\"><div class=\"shares\">{}</div><div "
        "class=\"legend\"><span>time: {}</span>{}</div></div>\n",
        bar, duration_text(all), legend);
}

std::string stage_section(const std::vector<MetricRecord>& metrics, const std::string& stage) {
    const auto steps = records_of(metrics, stage, false);
    const auto evaluations = records_of(metrics, stage, true);
    std::vector<Chart> charts;
    for (const std::string& name : names_of(evaluations)) {
        if (!name.starts_with("eval/")) continue;
        Chart chart = chart_of(evaluations, name, true);
        if (chart.points.size() >= 3 && !is_flat(chart)) charts.push_back(std::move(chart));
    }
    std::vector<std::string> names = names_of(steps);
    std::ranges::stable_sort(names, {}, [](const std::string& name) { return place_of(name); });
    for (const std::string& name : names) {
        if (name.starts_with("time/")) continue;
        Chart chart = chart_of(steps, name, false);
        if (chart.points.size() >= 2 && !is_flat(chart)) charts.push_back(std::move(chart));
    }
    if (charts.size() > kMostCharts) charts.resize(kMostCharts);
    if (charts.empty()) return {};
    std::string html = fmt::format("<h2>{}</h2>\n<p class=\"sub\">{} steps", escape_html(stage),
                                   steps.empty() ? 0 : steps.back()->step);
    const std::string* digest = steps.empty() ? nullptr : steps.back()->text("digest/weights");
    if (digest != nullptr) {
        html += fmt::format("; weights after the last: <code>{}</code>", escape_html(*digest));
    }
    html += "</p>\n" + time_shares(steps) + "<div class=\"grid\">\n";
    for (const Chart& chart : charts) {
        html += fmt::format("<div class=\"card\">{}</div>\n", to_svg(chart));
    }
    return html + "</div>\n";
}

// ---- answers

std::string answer_html(const SampleRecord& record) {
    return fmt::format(
        "<div class=\"answer {}\"><small>{}, step {} · reward {}</small><p>{}</p></div>",
        record.right ? "good" : "bad", escape_html(record.stage), record.step,
        number_text(record.sample.reward), escape_html(record.sample.answer));
}

std::string samples_section(const std::vector<SampleRecord>& samples) {
    // A problem with its first and last answer tells most; then the latest answers of others.
    std::vector<std::string> prompts;
    std::map<std::string, std::vector<const SampleRecord*>> answers;
    for (const SampleRecord& record : samples) {
        std::vector<const SampleRecord*>& of_prompt = answers[record.sample.prompt];
        if (of_prompt.empty()) prompts.push_back(record.sample.prompt);
        of_prompt.push_back(&record);
    }
    std::string pairs;
    std::size_t shown = 0;
    for (const std::string& prompt : prompts) {
        const auto& of_prompt = answers[prompt];
        if (of_prompt.size() < 2 || shown == kMostProblems) continue;
        ++shown;
        pairs += fmt::format(
            "<div class=\"card\"><p class=\"prompt\">{}</p><div class=\"pair\">{}{}</div></div>\n",
            escape_html(prompt), answer_html(*of_prompt.front()), answer_html(*of_prompt.back()));
    }
    std::string html;
    if (!pairs.empty()) {
        html += "<h2>The same problem, early and late</h2>\n<div class=\"samples\">" + pairs +
                "</div>\n";
    }
    std::string latest;
    std::size_t count = 0;
    for (auto record = samples.rbegin(); record != samples.rend() && count < kMostProblems;
         ++record) {
        if (answers[record->sample.prompt].size() > 1) continue;
        ++count;
        latest += fmt::format("<div class=\"card\"><p class=\"prompt\">{}</p>{}</div>\n",
                              escape_html(record->sample.prompt), answer_html(*record));
    }
    if (!latest.empty()) {
        html += "<h2>Latest answers</h2>\n<div class=\"samples\">" + latest + "</div>\n";
    }
    return html;
}

std::string text_of(io::FileSystem& fs, const io::Path& path) {
    const std::vector<std::byte> bytes = io::read_file(fs, path);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

std::string report_html(std::string_view title, const std::vector<MetricRecord>& metrics,
                        const std::vector<SampleRecord>& samples, std::string_view recipe) {
    const std::vector<std::string> stages = stages_of(metrics);
    std::string html = fmt::format(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
        "name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n"
        "<style>{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n",
        escape_html(title), kReportStyle);
    html += fmt::format(
        "<p class=\"sub\">{}</p>\n",
        stages.empty()
            ? "No step has been done yet."
            : fmt::format("Stages: {}", escape_html(fmt::format("{}", fmt::join(stages, " → ")))));
    html += evaluation_table(metrics);
    for (const std::string& stage : stages) html += stage_section(metrics, stage);
    html += samples_section(samples);
    html += fmt::format(
        "<h2>Recipe</h2>\n<div class=\"card\"><details><summary>Every option, as resolved"
        "</summary><pre>{}</pre></details></div>\n",
        escape_html(recipe));
    html += fmt::format("</main>\n<script>{}</script>\n</body>\n</html>\n", kReportScript);
    return html;
}

io::Path write_report(io::FileSystem& fs, const RunPaths& paths) {
    require(fs.exists(paths.metrics()),
            "{} is no run directory: it has no metrics.jsonl; give the directory of a run",
            paths.root.string());
    const std::string recipe =
        fs.exists(paths.recipe()) ? text_of(fs, paths.recipe()) : std::string();
    const std::string html =
        report_html(paths.root.filename().empty() ? paths.root.parent_path().filename().string()
                                                  : paths.root.filename().string(),
                    read_metrics(fs, paths.metrics()), read_samples(fs, paths.samples()), recipe);
    io::replace_file(fs, paths.report(), io::bytes_of(html));
    return paths.report();
}

}  // namespace rankwise::app
