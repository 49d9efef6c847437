// The sections that open-r1's format rewards look for. Private to src/tasks/rewards.
#pragma once

#include <optional>
#include <string_view>

namespace rankwise::tasks {

/// What follows "<think>\n…\n</think>\n<answer>\n" where a text begins with that, from the first
/// place it can end.
[[nodiscard]] std::optional<std::string_view> behind_thought(std::string_view text);

/// The first "\n</answer>" from `from` on that ends a line or the text; npos if there is none.
[[nodiscard]] std::size_t find_answer_end(std::string_view text, std::size_t from);

}  // namespace rankwise::tasks
