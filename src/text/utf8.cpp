#include "src/text/utf8.hpp"

#include <algorithm>

namespace rankwise::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

unsigned char byte_at(std::string_view text, std::size_t at) {
    return static_cast<unsigned char>(text[at]);
}

struct Sequence {
    std::size_t size =
        0;  ///< bytes that belong together: a character, or a maximal ill-formed subpart
    bool valid = false;  ///< a whole character
    bool cut = false;    ///< ill-formed only because the text ends
};

/// What begins at `at`: the second byte's range depends on the first (no overlong forms,
/// surrogates, values > 10FFFF).
Sequence sequence_at(std::string_view text, std::size_t at) {
    const unsigned char first = byte_at(text, at);
    const int length = utf8_length(first);
    if (length == 0) return {1, false, false};
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
    std::size_t size = 1;
    while (size < static_cast<std::size_t>(length)) {
        if (at + size >= text.size()) return {size, false, true};
        const unsigned char byte = byte_at(text, at + size);
        if (byte < low || byte > high) return {size, false, false};
        low = 0x80;
        high = 0xBF;
        ++size;
    }
    return {size, true, false};
}

}  // namespace

int utf8_length(unsigned char first) {
    if (first < 0x80) return 1;
    if (first < 0xC2) return 0;
    if (first < 0xE0) return 2;
    if (first < 0xF0) return 3;
    if (first < 0xF5) return 4;
    return 0;
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
        const Sequence sequence = sequence_at(text, at);
        if (!sequence.valid) return at;
        at += sequence.size;
    }
    return std::nullopt;
}

char32_t next_code_point(std::string_view text, std::size_t& at) {
    const unsigned char first = byte_at(text, at);
    const int length = std::max(1, utf8_length(first));
    constexpr unsigned char kMasks[] = {0x00, 0x7F, 0x1F, 0x0F, 0x07};
    char32_t value = first & kMasks[length];
    for (int i = 1; i < length; ++i) {
        value = (value << 6U) | (byte_at(text, at + static_cast<std::size_t>(i)) & 0x3FU);
    }
    at += static_cast<std::size_t>(length);
    return value;
}

void append_utf8(std::string& out, char32_t code_point) {
    const auto continuation = [&](unsigned shift) {
        out.push_back(static_cast<char>(0x80U | ((code_point >> shift) & 0x3FU)));
    };
    if (code_point < 0x80) {
        out.push_back(static_cast<char>(code_point));
    } else if (code_point < 0x800) {
        out.push_back(static_cast<char>(0xC0U | (code_point >> 6U)));
        continuation(0);
    } else if (code_point < 0x10000) {
        out.push_back(static_cast<char>(0xE0U | (code_point >> 12U)));
        continuation(6);
        continuation(0);
    } else {
        out.push_back(static_cast<char>(0xF0U | (code_point >> 18U)));
        continuation(12);
        continuation(6);
        continuation(0);
    }
}

void LossyUtf8::push(std::string_view bytes, std::string& out) {
    held_.append(bytes);
    std::size_t at = 0;
    while (at < held_.size()) {
        const Sequence sequence = sequence_at(held_, at);
        if (sequence.cut) break;
        if (sequence.valid) {
            out.append(held_, at, sequence.size);
        } else {
            out.append(kReplacement);
        }
        at += sequence.size;
    }
    held_.erase(0, at);
}

void LossyUtf8::finish(std::string& out) {
    if (!held_.empty()) out.append(kReplacement);  // a cut sequence is one maximal subpart
    held_.clear();
}

std::string to_utf8_lossy(std::string_view bytes) {
    std::string out;
    LossyUtf8 lossy;
    lossy.push(bytes, out);
    lossy.finish(out);
    return out;
}

}  // namespace rankwise::text
