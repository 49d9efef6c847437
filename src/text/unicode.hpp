// Letters and words by Unicode's rules.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rankwise::text {

/// Lower case of UTF-8 text, in no particular language.
[[nodiscard]] std::string lower_case(std::string_view text);

/// The runs of characters that are not white space.
[[nodiscard]] std::vector<std::string> split_white_space(std::string_view text);

}  // namespace rankwise::text
