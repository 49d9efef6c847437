#include "src/text/pre_tokenizer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/error.hpp"
#include "src/text/byte_level.hpp"
#include "src/text/pattern.hpp"

namespace rankwise::text {
namespace {

// GPT-2's expression (Radford et al. 2019, encoder.py), which ByteLevel uses unless told otherwise.
constexpr std::string_view kByteLevelRegex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// `\w` of Unicode TS 18: alphabetic, mark, decimal number, connector punctuation, join control.
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nl}\p{Nd}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

enum class Behaviour { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behaviour behaviour_of(const std::string& name, std::string_view where) {
    if (name == "Removed") return Behaviour::removed;
    if (name == "Isolated") return Behaviour::isolated;
    if (name == "MergedWithPrevious") return Behaviour::merged_with_previous;
    if (name == "MergedWithNext") return Behaviour::merged_with_next;
    if (name == "Contiguous") return Behaviour::contiguous;
    throw BadInput(fmt::format(
        "{}: the behavior \"{}\" is not known; known are Removed, Isolated, MergedWithPrevious, "
        "MergedWithNext, Contiguous",
        where, name));
}

struct Span {
    Match bytes;
    bool matches = false;
};

// The whole text as spans that match and spans between them.
std::vector<Span> tile(const Regex& regex, bool invert, std::string_view text) {
    std::vector<Match> matches;
    regex.find_all(text, matches);
    std::vector<Span> spans;
    std::size_t from = 0;
    for (const Match& match : matches) {
        if (match.begin > from) spans.push_back({{from, match.begin}, invert});
        spans.push_back({match, !invert});
        from = match.end;
    }
    if (from < text.size()) spans.push_back({{from, text.size()}, invert});
    return spans;
}

// A match joins its neighbour before it, unless that is a match that came first.
std::vector<Match> merge_matches(const std::vector<Span>& spans, bool with_next) {
    std::vector<Match> out;
    bool previous_matches = false;
    const auto take = [&](const Span& span) {
        if (span.matches && !previous_matches && !out.empty()) {
            out.back().begin = std::min(out.back().begin, span.bytes.begin);
            out.back().end = std::max(out.back().end, span.bytes.end);
        } else {
            out.push_back(span.bytes);
        }
        previous_matches = span.matches;
    };
    if (with_next) {
        std::for_each(spans.rbegin(), spans.rend(), take);
        std::reverse(out.begin(), out.end());
    } else {
        std::for_each(spans.begin(), spans.end(), take);
    }
    return out;
}

std::vector<Match> cut(const std::vector<Span>& spans, Behaviour behaviour) {
    std::vector<Match> out;
    switch (behaviour) {
        case Behaviour::removed:
            for (const Span& span : spans) {
                if (!span.matches) out.push_back(span.bytes);
            }
            return out;
        case Behaviour::isolated:
            for (const Span& span : spans) out.push_back(span.bytes);
            return out;
        case Behaviour::contiguous:
            for (std::size_t i = 0; i < spans.size(); ++i) {
                if (i > 0 && spans[i].matches == spans[i - 1].matches) {
                    out.back().end = spans[i].bytes.end;
                } else {
                    out.push_back(spans[i].bytes);
                }
            }
            return out;
        case Behaviour::merged_with_previous:
            return merge_matches(spans, false);
        case Behaviour::merged_with_next:
            return merge_matches(spans, true);
    }
    return out;
}

void split_piece(const Regex& regex, bool invert, Behaviour behaviour, Piece&& piece,
                 std::vector<Piece>& out) {
    for (const Match& match : cut(tile(regex, invert, piece.text), behaviour)) {
        out.push_back({piece.text.substr(match.begin, match.end - match.begin),
                       piece.at_start && match.begin == 0});
    }
}

}  // namespace

PreTokenizer::PreTokenizer(const Json* json, std::string_view where) {
    if (json != nullptr) add(*json, fmt::format("{}: pre_tokenizer", where));
}

void PreTokenizer::add(const Json& json, std::string_view where) {
    const std::string type = string_member(json, "type", where);
    const auto split = [this, where](std::string_view pattern, bool invert, Behaviour behaviour) {
        steps_.emplace_back(
            [regex = Regex(pattern, where), invert, behaviour](Piece&& piece, auto& out) {
                split_piece(regex, invert, behaviour, std::move(piece), out);
            });
    };
    if (type == "Sequence") {
        for (const Json& step : array_member(json, "pretokenizers", where)) add(step, where);
    } else if (type == "Split") {
        split(pattern_member(json, where).regex.pattern(),
              bool_member_or(json, "invert", false, where),
              behaviour_of(string_member(json, "behavior", where), where));
    } else if (type == "Digits") {
        const bool each = bool_member_or(json, "individual_digits", false, where);
        split(R"(\p{N})", false, each ? Behaviour::isolated : Behaviour::contiguous);
    } else if (type == "Whitespace") {
        split(fmt::format(R"([{0}]+|[^{0}\s]+)", kWord), true, Behaviour::removed);
    } else if (type == "WhitespaceSplit") {
        split(R"(\s)", false, Behaviour::removed);
    } else if (type == "Punctuation") {
        split(R"([\p{P}$+<=>^`|~])", false,
              behaviour_of(string_member_or(json, "behavior", "Isolated", where), where));
    } else if (type == "ByteLevel") {
        add_byte_level(json, where);
    } else if (type == "Metaspace") {
        add_metaspace(json, where);
    } else {
        throw BadInput(fmt::format(
            "{}: the kind \"{}\" is not known; known are Split, ByteLevel, Digits, Metaspace, "
            "Whitespace, WhitespaceSplit, Punctuation, Sequence",
            where, type));
    }
}

void PreTokenizer::add_byte_level(const Json& json, std::string_view where) {
    if (bool_member_or(json, "add_prefix_space", true, where)) {
        steps_.emplace_back([](Piece&& piece, std::vector<Piece>& out) {
            if (!piece.text.starts_with(' ')) piece.text = std::string(1, ' ').append(piece.text);
            out.push_back(std::move(piece));
        });
    }
    if (bool_member_or(json, "use_regex", true, where)) {
        steps_.emplace_back([regex = Regex(kByteLevelRegex, where)](Piece&& piece, auto& out) {
            split_piece(regex, false, Behaviour::isolated, std::move(piece), out);
        });
    }
    steps_.emplace_back([](Piece&& piece, std::vector<Piece>& out) {
        std::string mapped;
        mapped.reserve(piece.text.size() * 2);
        append_byte_level(mapped, piece.text);
        out.push_back({std::move(mapped), piece.at_start});
    });
}

void PreTokenizer::add_metaspace(const Json& json, std::string_view where) {
    const std::string mark = string_member_or(json, "replacement", "▁", where);
    // Files older than prepend_scheme say it with add_prefix_space.
    const bool old_prefix = bool_member_or(json, "add_prefix_space", true, where);
    const std::string scheme =
        string_member_or(json, "prepend_scheme", old_prefix ? "always" : "never", where);
    require(scheme == "always" || scheme == "first" || scheme == "never",
            "{}: \"prepend_scheme\" should be always, first or never, found \"{}\"", where, scheme);
    steps_.emplace_back([mark, scheme](Piece&& piece, std::vector<Piece>& out) {
        std::string text;
        for (const char c : piece.text) {
            if (c == ' ') {
                text += mark;
            } else {
                text += c;
            }
        }
        const bool prepend = scheme == "always" || (scheme == "first" && piece.at_start);
        if (prepend && !text.starts_with(mark)) text = std::string(mark).append(text);
        out.push_back({std::move(text), piece.at_start});
    });
    if (bool_member_or(json, "split", true, where)) {
        steps_.emplace_back([regex = Regex(quote_regex(mark), where)](Piece&& piece, auto& out) {
            split_piece(regex, false, Behaviour::merged_with_next, std::move(piece), out);
        });
    }
}

std::vector<Piece> PreTokenizer::operator()(Piece piece) const {
    std::vector<Piece> pieces;
    if (!piece.text.empty()) pieces.push_back(std::move(piece));
    for (const Step& step : steps_) {
        std::vector<Piece> next;
        next.reserve(pieces.size());
        for (Piece& each : pieces) step(std::move(each), next);
        std::erase_if(next, [](const Piece& each) { return each.text.empty(); });
        pieces = std::move(next);
    }
    return pieces;
}

}  // namespace rankwise::text
