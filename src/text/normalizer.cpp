#include "src/text/normalizer.hpp"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/error.hpp"
#include "src/text/pattern.hpp"

namespace rankwise::text {
namespace {

using IcuForm = const icu::Normalizer2* (*)(UErrorCode&);

std::string unicode_form(IcuForm form, std::string_view text) {
    const bool ascii = std::all_of(text.begin(), text.end(),
                                   [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    if (ascii) return std::string(text);  // unchanged by all four forms
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* normalizer = form(status);
    std::string out;
    icu::StringByteSink<std::string> sink(&out);
    if (U_SUCCESS(status)) {
        const icu::StringPiece piece(text.data(), static_cast<std::int32_t>(text.size()));
        normalizer->normalizeUTF8(0, piece, sink, nullptr, status);
    }
    if (U_FAILURE(status)) {
        throw EnvironmentError(fmt::format("ICU cannot normalise text: {}; is its data installed?",
                                           u_errorName(status)));
    }
    return out;
}

// Outer white space of a text, by the property White_Space.
std::string stripped(std::string_view text, bool left, bool right) {
    static const Regex spaces("^\\s+|\\s+$", "strip");
    std::vector<Match> matches;
    spaces.find_all(text, matches);
    std::size_t begin = 0;
    std::size_t end = text.size();
    for (const Match& match : matches) {
        if (left && match.begin == 0) begin = match.end;
        if (right && match.end == text.size()) end = std::max(begin, match.begin);
    }
    return std::string(text.substr(begin, end - begin));
}

}  // namespace

Normalizer::Normalizer(const Json* json, std::string_view where) {
    if (json != nullptr) add(*json, fmt::format("{}: normalizer", where));
}

void Normalizer::add(const Json& json, std::string_view where) {
    const std::string type = string_member(json, "type", where);
    if (type == "Sequence") {
        for (const Json& step : array_member(json, "normalizers", where)) add(step, where);
    } else if (type == "NFC") {
        steps_.emplace_back(
            [](auto text) { return unicode_form(icu::Normalizer2::getNFCInstance, text); });
    } else if (type == "NFD") {
        steps_.emplace_back(
            [](auto text) { return unicode_form(icu::Normalizer2::getNFDInstance, text); });
    } else if (type == "NFKC") {
        steps_.emplace_back(
            [](auto text) { return unicode_form(icu::Normalizer2::getNFKCInstance, text); });
    } else if (type == "NFKD") {
        steps_.emplace_back(
            [](auto text) { return unicode_form(icu::Normalizer2::getNFKDInstance, text); });
    } else if (type == "Prepend") {
        steps_.emplace_back([prefix = string_member(json, "prepend", where)](auto text) {
            return text.empty() ? std::string() : prefix + std::string(text);
        });
    } else if (type == "Replace") {
        steps_.emplace_back([pattern = pattern_member(json, where),
                             content = string_member(json, "content", where)](auto text) {
            return replace_all(pattern, content, text);
        });
    } else if (type == "Strip") {
        steps_.emplace_back([left = bool_member_or(json, "strip_left", true, where),
                             right = bool_member_or(json, "strip_right", true, where)](auto text) {
            return stripped(text, left, right);
        });
    } else {
        throw BadInput(fmt::format(
            "{}: the kind \"{}\" is not known; known are NFC, NFD, NFKC, NFKD, Prepend, Replace, "
            "Strip, Sequence",
            where, type));
    }
}

std::string Normalizer::operator()(std::string_view text) const {
    std::string out(text);
    for (const auto& step : steps_) out = step(out);
    return out;
}

}  // namespace rankwise::text
