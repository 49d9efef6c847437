// Text without the white space around it.
#pragma once

#include <string_view>

namespace rankwise::app {

[[nodiscard]] inline std::string_view trim(std::string_view text) {
    constexpr std::string_view kWhite = " \t\r\n";
    const auto first = text.find_first_not_of(kWhite);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(kWhite) - first + 1);
}

}  // namespace rankwise::app
