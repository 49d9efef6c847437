// The word that somebody probably meant.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rankwise::app {

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other
/// (optimal string alignment distance).
[[nodiscard]] int edit_distance(std::string_view a, std::string_view b);

/// The closest of `words`, the first of equals; empty if none is within a third of the length
/// (at least 2), or holds the word (or the other way round) at its beginning.
[[nodiscard]] std::string nearest(std::string_view word, const std::vector<std::string>& words);

}  // namespace rankwise::app
