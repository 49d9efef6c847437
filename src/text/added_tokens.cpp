#include "src/text/added_tokens.hpp"

#include <unicode/uchar.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/error.hpp"
#include "src/text/utf8.hpp"

namespace rankwise::text {
namespace {

bool is_space(char32_t c) {
    return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_WHITE_SPACE) != 0;
}

// `\w` of Unicode TS 18.
bool is_word(char32_t c) {
    const auto point = static_cast<UChar32>(c);
    const auto mask = U_GET_GC_MASK(point);
    return u_hasBinaryProperty(point, UCHAR_ALPHABETIC) != 0 ||
           (mask & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
           u_hasBinaryProperty(point, UCHAR_JOIN_CONTROL) != 0;
}

// Start of the character that ends at `end` > 0.
std::size_t previous_character(std::string_view text, std::size_t end) {
    std::size_t at = end - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
    return at;
}

bool word_ends_at(std::string_view text, std::size_t end) {
    if (end == 0) return false;
    std::size_t at = previous_character(text, end);
    return is_word(next_code_point(text, at));
}

bool word_begins_at(std::string_view text, std::size_t at) {
    return at < text.size() && is_word(next_code_point(text, at));
}

std::size_t spaces_begin_before(std::string_view text, std::size_t end) {
    while (end > 0) {
        const std::size_t begin = previous_character(text, end);
        std::size_t at = begin;
        if (!is_space(next_code_point(text, at))) break;
        end = begin;
    }
    return end;
}

std::size_t spaces_end_behind(std::string_view text, std::size_t at) {
    while (at < text.size()) {
        std::size_t next = at;
        if (!is_space(next_code_point(text, next))) break;
        at = next;
    }
    return at;
}

}  // namespace

std::vector<AddedToken> read_added_tokens(const Json& file, std::string_view where) {
    std::vector<AddedToken> tokens;
    const Json* list = member(file, "added_tokens");
    if (list == nullptr) return tokens;
    require(list->is_array(), "{}: \"added_tokens\" should be a list, found {}", where,
            list->type_name());
    for (const Json& entry : *list) {
        const std::string here = fmt::format("{}: added_tokens entry {}", where, tokens.size());
        require(entry.is_object(), "{} should be an object, found {}", here, entry.type_name());
        AddedToken token;
        token.id = int_member(entry, "id", here);
        token.content = string_member(entry, "content", here);
        require(!token.content.empty(), "{}: \"content\" is empty", here);
        token.single_word = bool_member_or(entry, "single_word", false, here);
        token.lstrip = bool_member_or(entry, "lstrip", false, here);
        token.rstrip = bool_member_or(entry, "rstrip", false, here);
        token.special = bool_member_or(entry, "special", false, here);
        token.normalized = bool_member_or(entry, "normalized", !token.special, here);
        tokens.push_back(std::move(token));
    }
    return tokens;
}

void AddedTokenFinder::add(const AddedToken& token, std::string_view written) {
    if (written.empty()) return;
    std::int32_t node = 0;
    for (const char byte : written) {
        const std::uint64_t edge =
            static_cast<std::uint64_t>(node) * 256U + static_cast<unsigned char>(byte);
        const auto [found, fresh] =
            edges_.try_emplace(edge, static_cast<std::int32_t>(node_token_.size()));
        if (fresh) node_token_.push_back(-1);
        node = found->second;
    }
    std::int32_t& owner = node_token_[static_cast<std::size_t>(node)];
    if (owner >= 0) return;  // spelt alike: the first stays
    owner = static_cast<std::int32_t>(tokens_.size());
    tokens_.push_back(token);
}

std::pair<std::int32_t, std::size_t> AddedTokenFinder::longest_at(std::string_view text,
                                                                  std::size_t at) const {
    std::pair<std::int32_t, std::size_t> best{-1, 0};
    std::int32_t node = 0;
    for (std::size_t i = at; i < text.size(); ++i) {
        const auto found = edges_.find(static_cast<std::uint64_t>(node) * 256U +
                                       static_cast<unsigned char>(text[i]));
        if (found == edges_.end()) break;
        node = found->second;
        const std::int32_t token = node_token_[static_cast<std::size_t>(node)];
        if (token >= 0) best = {token, i + 1 - at};
    }
    return best;
}

std::vector<AddedTokenFinder::Part> AddedTokenFinder::split(std::string_view text) const {
    std::vector<Part> parts;
    std::size_t given = 0;  // text before this is in a part
    for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
        const auto [index, size] = longest_at(text, at);
        if (index < 0) {
            ++at;
            continue;
        }
        const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
        std::size_t begin = at;
        std::size_t end = at + size;
        at = end;
        if (token.single_word && (word_ends_at(text, begin) || word_begins_at(text, end))) continue;
        if (token.lstrip) begin = std::max(spaces_begin_before(text, begin), given);
        if (token.rstrip) end = spaces_end_behind(text, end);
        if (given < begin) parts.push_back({given, begin, -1});
        parts.push_back({begin, end, token.id});
        given = end;
    }
    if (given < text.size()) parts.push_back({given, text.size(), -1});
    return parts;
}

}  // namespace rankwise::text
