#include "src/app/report.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "src/app/chain_chart.hpp"
#include "src/app/chart.hpp"
#include "src/app/evaluations.hpp"
#include "src/app/report_results.hpp"
#include "src/app/report_style.hpp"
#include "src/app/told_problem.hpp"
#include "src/stages/interval.hpp"

namespace rankwise::app {
namespace {

constexpr std::size_t kMostCharts = 15;
constexpr std::size_t kMostEvaluationCharts = 6;
constexpr std::size_t kMostProblems = 4;
constexpr std::size_t kMostOpenStages = 4;  ///< of longer chains the charts are folded
constexpr std::size_t kColors = 7;

/// Metrics in the order in which a reader wants them; others follow as written. A name that ends in
/// '/' stands for all that begin with it.
constexpr std::array<std::string_view, 21> kOrder{"reward",
                                                  "rewards/",
                                                  "loss",
                                                  "mtp_loss",
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
        if (value == nullptr || !std::isfinite(*value)) continue;
        chart.points.emplace_back(static_cast<double>(record->step), *value);
        const double* low = record->number(name + stages::kLow95);
        const double* high = record->number(name + stages::kHigh95);
        if (low != nullptr && high != nullptr) chart.intervals.emplace_back(*low, *high);
    }
    if (chart.intervals.size() != chart.points.size()) chart.intervals.clear();
    return chart;
}

bool is_flat(const Chart& chart) {
    return std::ranges::all_of(chart.points, [&chart](const auto& point) {
        return point.second == chart.points.front().second;
    });
}

/// Charts of evaluations: what the table of results has, in its order.
std::vector<Chart> evaluation_charts(const std::vector<const MetricRecord*>& evaluations) {
    std::vector<Chart> charts;
    for (const Measure& measure : measures_of(evaluations)) {
        if (charts.size() == kMostEvaluationCharts) break;
        Chart chart = chart_of(evaluations, name_in(*evaluations.back(), measure), true);
        if (chart.points.size() >= 3 && !is_flat(chart)) charts.push_back(std::move(chart));
    }
    return charts;
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
        "<details class=\"fold\"><summary>Every number of the first and the last evaluation of "
        "each stage</summary><div class=\"card\"><table>\n<tr><th></th>";
    for (const MetricRecord* column : columns) {
        html += fmt::format("<th>{}<br>step {}</th>", escape_html(column->stage), column->step);
    }
    html += "</tr>\n";
    for (const std::string& name : names_of(columns)) {
        if (!name.starts_with("eval/") || stages::is_bound(name)) continue;
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
    return html + "</table></div></details>\n";
}

// ---- the chain

std::string chain_section(const std::vector<ChainStage>& chain,
                          const std::vector<MetricRecord>& metrics) {
    if (chain.empty()) return {};
    std::vector<std::string> models;
    std::string legend;
    bool data = false;
    for (const ChainStage& stage : chain) {
        data = data || stage.data;
        if (std::ranges::find(models, stage.model) != models.end()) continue;
        models.push_back(stage.model);
        legend += fmt::format("<span><i class=\"m{}\"></i>{}{}</span>", models.size() - 1,
                              escape_html(stage.model),
                              stage.shape.empty() ? "" : ": " + escape_html(stage.shape));
    }
    return fmt::format(
        "<div class=\"card\">{}<div class=\"legend\">{}<span>—▶ weights go on</span>{}"
        "<span>percentages: right answers to problems never trained on</span></div></div>\n",
        chain_svg(chain, metrics), legend,
        data ? "<span class=\"data\">┄▶ answers become data</span>" : "");
}

// ---- one stage

std::string time_shares(const std::vector<const MetricRecord*>& records) {
    std::vector<std::pair<std::string, double>> totals;
    double all = 0.0;
    for (const std::string& name : names_of(records)) {
        if (!name.starts_with("time/") || name == "time/step") continue;  // a phase; the sum
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

std::string stage_section(const std::vector<MetricRecord>& metrics, const std::string& stage,
                          bool open) {
    const auto steps = records_of(metrics, stage, false);
    const auto evaluations = records_of(metrics, stage, true);
    std::vector<Chart> charts = evaluation_charts(evaluations);
    std::vector<std::string> names = names_of(steps);
    std::ranges::stable_sort(names, {}, [](const std::string& name) { return place_of(name); });
    for (const std::string& name : names) {
        if (name.starts_with("time/")) continue;
        Chart chart = chart_of(steps, name, false);
        if (chart.points.size() >= 2 && !is_flat(chart)) charts.push_back(std::move(chart));
    }
    if (charts.size() > kMostCharts) charts.resize(kMostCharts);
    if (charts.empty()) return fmt::format("<a id=\"stage-{}\"></a>\n", escape_html(stage));
    std::string html = fmt::format(
        "<details class=\"stage\" id=\"stage-{0}\"{2}><summary><h2>{0}</h2></summary>\n<p "
        "class=\"sub\">{1} steps",
        escape_html(stage), steps.empty() ? 0 : steps.back()->step, open ? " open" : "");
    const std::string* digest = steps.empty() ? nullptr : steps.back()->text("digest/weights");
    if (digest != nullptr) {
        html += fmt::format("; weights after the last: <code>{}</code>", escape_html(*digest));
    }
    html += "</p>\n" + time_shares(steps) + "<div class=\"grid\">\n";
    for (const Chart& chart : charts) {
        html += fmt::format("<div class=\"card\">{}</div>\n", to_svg(chart));
    }
    return html + "</div></details>\n";
}

// ---- answers

std::string answer_html(const SampleRecord& record) {
    return fmt::format(
        "<div class=\"answer {}\"><small>{}, step {} · reward {}</small><p>{}</p></div>",
        record.right ? "good" : "bad", escape_html(record.stage), record.step,
        number_text(record.sample.reward), escape_html(record.sample.answer));
}

std::string samples_section(const std::vector<SampleRecord>& samples) {
    // Problems that were asked more than once, early and late; then the latest answers of others.
    const std::vector<AskedProblem> problems = problems_asked(samples);
    std::string pairs;
    std::size_t shown = 0;
    for (const AskedProblem& problem : problems) {
        if (problem.answers.size() < 2 || shown == kMostProblems) continue;
        ++shown;
        pairs += fmt::format(
            "<div class=\"card\"><p class=\"prompt\">{}</p><div class=\"pair\">{}{}</div></div>\n",
            escape_html(problem.prompt), answer_html(*problem.answers.front()),
            answer_html(*problem.answers.back()));
    }
    std::string html;
    if (!pairs.empty()) {
        html += "<h2>The same problem, early and late</h2>\n<div class=\"samples\">" + pairs +
                "</div>\n";
    }
    std::string latest;
    shown = 0;
    for (auto problem = problems.rbegin(); problem != problems.rend() && shown < kMostProblems;
         ++problem) {
        if (problem->answers.size() > 1) continue;
        ++shown;
        latest += fmt::format("<div class=\"card\"><p class=\"prompt\">{}</p>{}</div>\n",
                              escape_html(problem->prompt), answer_html(*problem->answers.front()));
    }
    if (!latest.empty()) {
        html += "<h2>Latest answers</h2>\n<div class=\"samples\">" + latest + "</div>\n";
    }
    return html;
}

}  // namespace

std::string report_html(std::string_view title, const std::vector<MetricRecord>& metrics,
                        const std::vector<SampleRecord>& samples,
                        const std::vector<MemoryRecord>& memory, std::string_view recipe) {
    const std::vector<std::string> stages = stages_of(metrics);
    std::string html = fmt::format(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
        "name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{0}</title>\n"
        "<style>{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n",
        escape_html(title), kReportStyle);
    const std::vector<ChainStage> chain = chain_of(recipe, metrics);
    if (stages.empty()) html += "<p class=\"sub\">No step has been done yet.</p>\n";
    html += chain_section(chain, metrics);
    html += results_section(chain, metrics);
    html += evaluation_table(metrics);
    html += difficulty_section(chain, metrics);
    html += told_section(chain, samples);
    if (!stages.empty()) html += "<h2 class=\"part\">Stage by stage</h2>\n";
    for (const std::string& stage : stages)
        html += stage_section(metrics, stage, stages.size() <= kMostOpenStages);
    html += samples_section(samples);
    html += memory_section(chain, memory);
    html += traffic_section(chain, memory);
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
        fs.exists(paths.recipe()) ? read_text(fs, paths.recipe()) : std::string();
    const std::string html =
        report_html(paths.root.filename().empty() ? paths.root.parent_path().filename().string()
                                                  : paths.root.filename().string(),
                    read_metrics(fs, paths.metrics()), read_samples(fs, paths.samples()),
                    read_memory(fs, paths.memory()), recipe);
    io::replace_file(fs, paths.report(), io::bytes_of(html));
    return paths.report();
}

}  // namespace rankwise::app
