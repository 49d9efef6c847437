// What an answer does beyond being right: how often it tries, errs, repeats and corrects itself.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/tasks/answer.hpp"
#include "src/tasks/problem.hpp"

namespace rankwise::tasks {

/// Counts of one answer by name, in a fixed order.
using Counts = std::vector<std::pair<std::string, double>>;

/// The counts of the problem's task. Every task: cut_off (1 if the answer did not end by itself).
/// "countdown" also: tries, sums, wrong_sums, repeats (tries that were made before), tried_again (1
/// if more than one try), self_corrected (1 if right with more than one try).
[[nodiscard]] Counts behaviour(const Problem& problem, const Answer& answer);

/// Means over answers, and the shares that go by another count than answers: sum_error_rate =
/// wrong_sums / sums, repeat_rate = repeats / tries (those two counts are left out). Sums are of
/// whole numbers: exact in any order.
/// @param answers  counts with the same names in the same order; empty: no metrics
[[nodiscard]] Counts summarise(const std::vector<Counts>& answers);

}  // namespace rankwise::tasks
