#define PCRE2_CODE_UNIT_WIDTH 8
#include "src/text/regex.hpp"

#include <pcre2.h>

#include "src/base/error.hpp"
#include "src/base/unique_handle.hpp"

namespace rankwise::text {
namespace {

using Code = UniqueHandle<pcre2_code*, pcre2_code_free>;
using MatchData = UniqueHandle<pcre2_match_data*, pcre2_match_data_free>;

// The property White_Space of Unicode 15 (PropList.txt).
constexpr std::string_view kSpaceRanges =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// Writes `\s` and `\S` out. Inside a class `\S` has no such form and keeps PCRE2's meaning.
std::string with_own_spaces(std::string_view pattern) {
    std::string out;
    bool in_class = false;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        const char c = pattern[i];
        if (c == '\\' && i + 1 < pattern.size()) {
            const char next = pattern[++i];
            if (next == 's') {
                out += in_class ? std::string(kSpaceRanges) : fmt::format("[{}]", kSpaceRanges);
            } else if (next == 'S' && !in_class) {
                out += fmt::format("[^{}]", kSpaceRanges);
            } else {
                out += {c, next};
            }
            continue;
        }
        if (c == '[' && !in_class) {
            in_class = true;
            out += c;
            if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
            if (i + 1 < pattern.size() && pattern[i + 1] == ']')
                out += pattern[++i];  // a literal ]
            continue;
        }
        if (c == ']') in_class = false;
        out += c;
    }
    return out;
}

std::string pcre2_message(int code) {
    PCRE2_UCHAR buffer[256];
    pcre2_get_error_message(code, buffer, sizeof buffer);
    return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Compiled {
    std::string pattern;
    Code code;
};

Regex::Regex(std::string_view pattern, std::string_view where) {
    const std::string own = with_own_spaces(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(own.data()), own.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr));
    require(static_cast<bool>(code),
            "{}: the regular expression \"{}\" is not understood: {} (near byte {})", where,
            pattern, pcre2_message(error), offset);
    pcre2_jit_compile(code.get(),
                      PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
    compiled_ = std::make_shared<const Compiled>(Compiled{std::string(pattern), std::move(code)});
}

const std::string& Regex::pattern() const {
    return compiled_->pattern;
}

void Regex::find_all(std::string_view text, std::vector<Match>& matches) const {
    pcre2_code* code = compiled_->code.get();
    const MatchData data(pcre2_match_data_create_from_pattern(code, nullptr));
    ensure(static_cast<bool>(data), "no memory for a regular expression's match");
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    std::size_t from = 0;
    while (from < text.size()) {
        int found =
            pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
        if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
            found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                                data.get(), nullptr);
        }
        if (found == PCRE2_ERROR_NOMATCH) return;
        require(found > 0, "the regular expression \"{}\" gives up on a text of {} bytes: {}",
                compiled_->pattern, text.size(), pcre2_message(found));
        const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
        if (ends[1] > ends[0]) {
            matches.push_back({ends[0], ends[1]});
            from = ends[1];
        } else {
            from = ends[1] + 1;
            while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0U) == 0x80U)
                ++from;
        }
    }
}

std::string quote_regex(std::string_view literal) {
    std::string out;
    for (const char c : literal) {
        if (c != '\0' &&
            std::string_view(R"(\^$.|?*+()[]{}-#)").find(c) != std::string_view::npos) {
            out += '\\';
        }
        out += c;
    }
    return out;
}

}  // namespace rankwise::text
