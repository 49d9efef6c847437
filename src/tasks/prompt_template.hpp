// Prompts around a problem's fields.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "src/tasks/problem.hpp"

namespace rankwise::tasks {

/// Makes the prompt of a problem that has its other fields. `where` is for messages.
using PromptTemplate = std::function<std::string(const Problem& problem, std::string_view where)>;

/// Templates by name:
///   "prompt"    the row's own prompt;
///   "tinyzero"  Countdown for a base model, from nums and target (TinyZero);
///   "r1_zero"   the R1-Zero paper's Table 1 around the row's prompt, or its "question" or
///   "problem" column.
/// @throws BadInput for another name (lists those known and names the nearest)
[[nodiscard]] PromptTemplate prompt_template(std::string_view name);
[[nodiscard]] std::vector<std::string> prompt_template_names();

}  // namespace rankwise::tasks
