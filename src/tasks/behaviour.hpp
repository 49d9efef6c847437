// What an answer does beyond being right: how often it tries, errs, starts anew, repeats and
// corrects itself.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/tasks/answer.hpp"
#include "src/tasks/problem.hpp"

namespace rankwise::tasks {

/// Counts of one answer by name, in a fixed order.
using Counts = std::vector<std::pair<std::string, double>>;

/// A word or phrase by which an answer looks back at what it has written.
struct Marker {
    std::string_view text;       ///< lower case; single spaces between words
    std::string_view task = {};  ///< the only task whose answers say it so; empty: every task
};
/// "wait", "again", "let me", …
[[nodiscard]] std::span<const Marker> reflection_markers();

/// Length of the longest marker that stands in a text at byte `at`: ASCII letters in either case,
/// and no letter, digit or '_' before and behind it. 0 if there is none.
[[nodiscard]] std::size_t marker_at(std::string_view text, std::size_t at, std::string_view task,
                                    std::span<const Marker> markers = reflection_markers());

/// Places of a text where a marker stands; they do not overlap. "Wait, let me check again" has
/// four.
[[nodiscard]] std::int64_t count_markers(std::string_view text, std::string_view task,
                                         std::span<const Marker> markers = reflection_markers());

/// Lines that were there before in the same text; without the white space around them, and empty
/// ones do not count.
[[nodiscard]] std::int64_t count_repeated_lines(std::string_view text);

/// Counts of the text, which every task has: cut_off (1 if the answer did not end by itself),
/// reflections (count_markers), repeated_lines.
[[nodiscard]] Counts text_behaviour(const Problem& problem, const Answer& answer);

/// text_behaviour(), then the counts of the problem's task. "countdown", of the thought: tries,
/// sums, wrong_sums, repeats and repeated_tries (tries that were made before: as a share, and as a
/// count), checks (tries whose result is then
/// compared, " vs "), restarts (tries begun after one that had a wrong sum in it, or that was left
/// unfinished at " wait "), tried_again (1 if more than one try), self_corrected (1 if right with
/// more than one try).
[[nodiscard]] Counts behaviour(const Problem& problem, const Answer& answer);

/// A count that means something as a share of another count.
struct Share {
    std::string_view count;
    std::string_view of;
    std::string_view name;
};
/// sum_error_rate = wrong_sums / sums, repeat_rate = repeats / tries, check_rate = checks / tries.
[[nodiscard]] std::span<const Share> shares();

/// Means over answers; a count that is a share of another goes by the share's name instead. Sums
/// are of whole numbers: exact in any order.
/// @param answers  of several tasks: the counts that they begin with in common count, others do
/// not; empty: no metrics
[[nodiscard]] Counts summarise(const std::vector<Counts>& answers);

}  // namespace rankwise::tasks
