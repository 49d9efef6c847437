// UTF-8 text in terminal columns.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace rankwise::app {

/// Text in which control characters (line ends too) are spaces and bytes that are not UTF-8 are
/// U+FFFD: safe to print.
[[nodiscard]] std::string printable(std::string_view text);

/// Columns of printable text: East Asian wide characters take two, combining marks none.
[[nodiscard]] std::size_t columns_of(std::string_view text);

/// As much of printable text as fits into `columns`, ending in `end` if something was cut.
[[nodiscard]] std::string cut_text(std::string_view text, std::size_t columns,
                                   std::string_view end = "…");

/// Printable text in lines of at most `columns`, broken at spaces where there are some; at most
/// `lines` of them (the last one then ends in `end`).
[[nodiscard]] std::vector<std::string> wrap_text(std::string_view text, std::size_t columns,
                                                 std::size_t lines, std::string_view end = "…");

}  // namespace rankwise::app
