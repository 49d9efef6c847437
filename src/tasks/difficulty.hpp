// How hard a problem is, in a few named bins.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

#include "src/tasks/problem.hpp"

namespace rankwise::tasks {

/// From easy to hard.
inline constexpr std::array<std::string_view, 4> kDifficulties{"easy", "medium", "hard", "hardest"};

/// The bin of a problem: an index into kDifficulties; nothing for a task without such a notion.
///
/// Countdown with three numbers: the share of hits among the tries that the numbers allow (two
/// steps each; countdown::tries_of), which is how often a blind try succeeds. "easy": at least one
/// in ten hits, "medium": one in twenty, "hard": one in thirty, "hardest": fewer. Of problems with
/// numbers up to 12 these are about 27, 23, 34 and 16 %. It depends on the problem alone.
[[nodiscard]] std::optional<std::size_t> difficulty_of(const Problem& problem);

}  // namespace rankwise::tasks
