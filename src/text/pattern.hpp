// The "pattern" of Split and Replace: a text or a regular expression. Private to src/text.
#pragma once

#include <string>
#include <string_view>

#include "src/text/json_fields.hpp"
#include "src/text/regex.hpp"

namespace rankwise::text {

/// {"String": "…"} or {"Regex": "…"}, the member "pattern" of `object`.
struct Pattern {
    Regex regex;
    std::string literal;  ///< empty for a regular expression
};
[[nodiscard]] Pattern pattern_member(const Json& object, std::string_view where);

/// Replaces every match of `pattern` by `content`.
[[nodiscard]] std::string replace_all(const Pattern& pattern, std::string_view content,
                                      std::string_view text);

}  // namespace rankwise::text
