// What the evaluations of a run say, as a table has it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/app/run_records.hpp"

namespace rankwise::app {

/// A column: one metric, or a family of metrics that differ by k.
struct Measure {
    std::string_view metric;  ///< "eval/self_corrected"; "eval/cons@": of any k
    std::string_view title;   ///< "corrected itself"
    std::string_view help;    ///< what it is, in a sentence
    bool percent = true;
};

/// Every column, the most telling first.
[[nodiscard]] std::span<const Measure> measures();

/// A value with its 95 % interval.
struct Measured {
    double value = 0.0;
    std::optional<std::pair<double, double>> interval = std::nullopt;
    std::string k = {};  ///< of a family: "8"
};

/// The metric that a record has of a measure; empty if there is none.
[[nodiscard]] std::string name_in(const MetricRecord& record, const Measure& measure);

/// What an evaluation says of a measure; nothing if it says nothing.
[[nodiscard]] std::optional<Measured> measured(const MetricRecord& evaluation,
                                               const Measure& measure);

/// Columns of which some evaluation says something.
[[nodiscard]] std::vector<Measure> measures_of(std::span<const MetricRecord* const> evaluations);

/// A column's title: of a family "vote of 8", if k is the same in all rows.
[[nodiscard]] std::string title_of(std::span<const MetricRecord* const> evaluations,
                                   const Measure& measure);

/// The last evaluation of each stage that has one, in the order of the stages.
[[nodiscard]] std::vector<const MetricRecord*> last_evaluations(
    std::span<const MetricRecord> metrics);

/// "74.6 %" or "129.3"; small counts with two digits.
[[nodiscard]] std::string value_text(double value, const Measure& measure);

}  // namespace rankwise::app
