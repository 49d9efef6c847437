// What a task asks, and what a reward needs to judge an answer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rankwise::tasks {

/// One problem. The prompt's token ids are `Tokenizer::encode(prompt, true)` of the policy's
/// tokenizer.
struct Problem {
    std::uint64_t id = 0;            ///< unique in its data set; names the problem's random streams
    std::string task;                ///< "countdown", "gsm8k", …
    std::string prompt;              ///< UTF-8
    std::vector<std::int64_t> nums;  ///< numbers to be used, for Countdown
    std::optional<std::int64_t> target;          ///< value to be reached, for Countdown
    std::string reference;                       ///< right answer as text; empty if there is none
    std::map<std::string, std::string> columns;  ///< every other column, its value as JSON text

    friend bool operator==(const Problem&, const Problem&) = default;
};

/// One line of JSON without the line end. Keys: id, task, prompt, nums, target, answer (the
/// reference), then the columns. Empty fields are left out.
[[nodiscard]] std::string to_json_line(const Problem& problem);

/// Reads what to_json_line writes, and any line of that form. Other columns are kept. `answer` may
/// be missing; without an `id`, `default_id` is taken. The reference is `answer` if that is text,
/// else `solution`, `ground_truth` or `label`.
/// @param where  file and line, for messages
/// @throws BadInput if the line is no JSON object, or a known key has the wrong type.
[[nodiscard]] Problem problem_from_json_line(std::string_view line, std::uint64_t default_id,
                                             std::string_view where);

}  // namespace rankwise::tasks
