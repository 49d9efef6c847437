#include "src/text/pattern.hpp"

#include <nlohmann/json.hpp>

#include "src/base/error.hpp"

namespace rankwise::text {

Pattern pattern_member(const Json& object, std::string_view where) {
    const Json& pattern = required_member(object, "pattern", where);
    if (member(pattern, "String") != nullptr) {
        std::string literal = string_member(pattern, "String", where);
        require(!literal.empty(), "{}: \"pattern\" is an empty text", where);
        return {Regex(quote_regex(literal), where), literal};
    }
    require(member(pattern, "Regex") != nullptr,
            "{}: \"pattern\" should be {{\"String\": …}} or {{\"Regex\": …}}, found {}", where,
            pattern.dump());
    return {Regex(string_member(pattern, "Regex", where), where), {}};
}

std::string replace_all(const Pattern& pattern, std::string_view content, std::string_view text) {
    std::string out;
    if (!pattern.literal.empty()) {
        std::size_t from = 0;
        for (std::size_t at = text.find(pattern.literal); at != std::string_view::npos;
             at = text.find(pattern.literal, from)) {
            out.append(text.substr(from, at - from)).append(content);
            from = at + pattern.literal.size();
        }
        return out.append(text.substr(from));
    }
    std::vector<Match> matches;
    pattern.regex.find_all(text, matches);
    std::size_t from = 0;
    for (const Match& match : matches) {
        out.append(text.substr(from, match.begin - from)).append(content);
        from = match.end;
    }
    return out.append(text.substr(from));
}

}  // namespace rankwise::text
