#include "src/text/unicode.hpp"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include "src/text/utf8.hpp"

namespace rankwise::text {

std::string lower_case(std::string_view text) {
    const icu::StringPiece piece(text.data(), static_cast<std::int32_t>(text.size()));
    std::string out;
    icu::UnicodeString::fromUTF8(piece).toLower(icu::Locale::getRoot()).toUTF8String(out);
    return out;
}

std::vector<std::string> split_white_space(std::string_view text) {
    std::vector<std::string> words;
    bool inside = false;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t begin = at;
        const auto point = static_cast<UChar32>(next_code_point(text, at));
        const bool space = u_hasBinaryProperty(point, UCHAR_WHITE_SPACE) != 0;
        if (!space && !inside) words.emplace_back();
        if (!space) words.back().append(text.substr(begin, at - begin));
        inside = !space;
    }
    return words;
}

}  // namespace rankwise::text
