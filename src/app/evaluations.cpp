#include "src/app/evaluations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "src/stages/interval.hpp"

namespace rankwise::app {
namespace {

constexpr std::array<Measure, 15> kMeasures{{
    {"eval/pass@1", "right", "an answer is right (pass@1)"},
    {"eval/cons@", "vote", "the most frequent of k answers is right (cons@k)"},
    {"eval/pass@", "one", "at least one of k answers is right (pass@k)"},
    {"eval/format_of_finished", "well formed", "finished answers with every tag in its place"},
    {"eval/completions/mean_length", "length", "tokens of an answer", false},
    {"eval/cut_off", "cut off", "answers that did not end by themselves"},
    {"eval/self_corrected", "corrected itself", "answers that are right after a wrong try"},
    {"eval/tries", "tries", "tries of an answer", false},
    {"eval/restarts", "restarts", "new tries after a wrong sum or an unfinished try, an answer",
     false},
    {"eval/reflections", "reflections", "words such as “wait” and “check”, an answer", false},
    {"eval/repeated_tries", "repeated tries", "tries that were made before, an answer", false},
    {"eval/repeat_rate", "share repeated", "tries that were made before, of all tries"},
    {"eval/repeated_lines", "repeated lines", "lines that were there before, an answer", false},
    {"eval/sum_error_rate", "wrong sums", "sums that are wrong"},
    {"eval/check_rate", "checked tries", "tries whose result is compared with the target"},
}};

}  // namespace

std::span<const Measure> measures() {
    return kMeasures;
}

std::string name_in(const MetricRecord& record, const Measure& measure) {
    if (!measure.metric.ends_with('@'))
        return record.number(measure.metric) == nullptr ? "" : std::string(measure.metric);
    for (const auto& number : record.numbers) {
        const std::string_view name = number.first;
        if (name.starts_with(measure.metric) && name != "eval/pass@1" &&
            name.find('/', measure.metric.size()) == std::string_view::npos)
            return std::string(name);
    }
    return {};
}

std::optional<Measured> measured(const MetricRecord& evaluation, const Measure& measure) {
    const std::string name = name_in(evaluation, measure);
    if (name.empty()) return std::nullopt;
    Measured found{.value = *evaluation.number(name)};
    const double* low = evaluation.number(name + stages::kLow95);
    const double* high = evaluation.number(name + stages::kHigh95);
    if (low != nullptr && high != nullptr) found.interval.emplace(*low, *high);
    if (measure.metric.ends_with('@')) found.k = name.substr(measure.metric.size());
    return found;
}

std::vector<Measure> measures_of(std::span<const MetricRecord* const> evaluations) {
    std::vector<Measure> some;
    for (const Measure& measure : kMeasures) {
        const bool there =
            std::any_of(evaluations.begin(), evaluations.end(),
                        [&](const MetricRecord* record) { return measured(*record, measure); });
        // Lines are of text; where tries are counted there are none.
        const bool empty =
            measure.metric == "eval/repeated_lines" &&
            std::all_of(evaluations.begin(), evaluations.end(), [&](const MetricRecord* record) {
                const auto value = measured(*record, measure);
                return !value || value->value == 0.0;
            });
        if (there && !empty) some.push_back(measure);
    }
    return some;
}

std::string title_of(std::span<const MetricRecord* const> evaluations, const Measure& measure) {
    std::string title(measure.title);
    std::string k;
    for (const MetricRecord* record : evaluations) {
        const auto found = measured(*record, measure);
        if (!found || found->k.empty()) continue;
        if (!k.empty() && k != found->k) return title + " of k";
        k = found->k;
    }
    return k.empty() ? title : title + " of " + k;
}

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

std::string value_text(double value, const Measure& measure) {
    if (measure.percent) return fmt::format("{:.1f} %", 100.0 * value);
    return std::abs(value) < 10.0 ? fmt::format("{:.2f}", value) : fmt::format("{:.1f}", value);
}

}  // namespace rankwise::app
