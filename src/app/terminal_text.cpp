#include "src/app/terminal_text.hpp"

#include <array>
#include <utility>

#include "src/text/utf8.hpp"

namespace rankwise::app {
namespace {

using CodeRange = std::pair<char32_t, char32_t>;

constexpr std::array kCombining{
    CodeRange{0x0300, 0x036F}, CodeRange{0x0483, 0x0489}, CodeRange{0x0591, 0x05BD},
    CodeRange{0x0610, 0x061A}, CodeRange{0x064B, 0x065F}, CodeRange{0x0E31, 0x0E31},
    CodeRange{0x0E34, 0x0E3A}, CodeRange{0x1AB0, 0x1AFF}, CodeRange{0x200B, 0x200F},
    CodeRange{0x20D0, 0x20FF}, CodeRange{0xFE00, 0xFE0F}, CodeRange{0xFE20, 0xFE2F},
};
constexpr std::array kWide{
    CodeRange{0x1100, 0x115F},   CodeRange{0x2E80, 0x303E},   CodeRange{0x3041, 0xA4CF},
    CodeRange{0xAC00, 0xD7A3},   CodeRange{0xF900, 0xFAFF},   CodeRange{0xFE30, 0xFE6F},
    CodeRange{0xFF00, 0xFF60},   CodeRange{0xFFE0, 0xFFE6},   CodeRange{0x1F300, 0x1F64F},
    CodeRange{0x1F900, 0x1F9FF}, CodeRange{0x20000, 0x3FFFD},
};

template <class Ranges>
bool within(const Ranges& ranges, char32_t code) {
    for (const CodeRange& range : ranges) {
        if (code >= range.first && code <= range.second) return true;
    }
    return false;
}

std::size_t columns_of(char32_t code) {
    if (within(kCombining, code)) return 0;
    return within(kWide, code) ? 2 : 1;
}

/// Bytes of the longest beginning that fits into `columns`.
std::size_t bytes_that_fit(std::string_view text, std::size_t columns) {
    std::size_t used = 0;
    std::size_t at = 0;
    while (at < text.size()) {
        std::size_t next = at;
        used += columns_of(text::next_code_point(text, next));
        if (used > columns) break;
        at = next;
    }
    return at;
}

}  // namespace

std::string printable(std::string_view text) {
    std::string clean = text::to_utf8_lossy(text);
    std::string out;
    out.reserve(clean.size());
    for (std::size_t at = 0; at < clean.size();) {
        const std::size_t begin = at;
        const char32_t code = text::next_code_point(clean, at);
        const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
        if (control) {
            out += ' ';
        } else {
            out.append(clean, begin, at - begin);
        }
    }
    return out;
}

std::size_t columns_of(std::string_view text) {
    std::size_t columns = 0;
    for (std::size_t at = 0; at < text.size();)
        columns += columns_of(text::next_code_point(text, at));
    return columns;
}

std::string cut_text(std::string_view text, std::size_t columns, std::string_view end) {
    if (columns_of(text) <= columns) return std::string(text);
    const std::size_t room = columns_of(end);
    if (columns < room) return std::string(text.substr(0, bytes_that_fit(text, columns)));
    return std::string(text.substr(0, bytes_that_fit(text, columns - room))) + std::string(end);
}

std::vector<std::string> wrap_text(std::string_view text, std::size_t columns, std::size_t lines,
                                   std::string_view end) {
    std::vector<std::string> out;
    if (columns == 0) return out;
    while (!text.empty() && out.size() < lines) {
        if (out.size() + 1 == lines) {
            out.push_back(cut_text(text, columns, end));
            break;
        }
        std::size_t size = bytes_that_fit(text, columns);
        if (size == 0) size = text.size();  // a wide character in one column: nothing helps
        if (size < text.size() && text[size] != ' ') {
            const auto space = text.rfind(' ', size);
            // Words longer than half a line are cut, not carried over.
            if (space != std::string_view::npos && space > size / 2) size = space;
        }
        out.emplace_back(text.substr(0, size));
        text = text.substr(size);
        while (text.starts_with(' ')) text.remove_prefix(1);
    }
    return out;
}

}  // namespace rankwise::app
