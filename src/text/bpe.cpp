#include <algorithm>
#include <array>
#include <mutex>
#include <nlohmann/json.hpp>
#include <queue>
#include <shared_mutex>

#include "src/base/error.hpp"
#include "src/text/model.hpp"
#include "src/text/pair_table.hpp"
#include "src/text/utf8.hpp"

namespace rankwise::text {
namespace {

struct BpeOptions {
    std::string prefix;  // before every character but a piece's first
    std::string suffix;  // after a piece's last character
    std::optional<TokenId> unknown;
    bool fuse_unknown = false;
    bool byte_fallback = false;
    bool ignore_merges = false;  // a piece that is a token is that token
};

struct Symbol {
    TokenId id = 0;
    std::int32_t previous = -1;
    std::int32_t next = -1;
    bool gone = false;
};

struct Candidate {
    std::int32_t rank = 0;
    std::int32_t left = 0;  // position of the pair's left symbol
    TokenId result = 0;
};
// std::priority_queue takes the largest first: lowest rank, then leftmost.
struct Later {
    bool operator()(const Candidate& a, const Candidate& b) const {
        return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
    }
};

/// Pieces that were encoded before. Bounded: when it is full it stays as it is.
class Cache {
  public:
    bool find(std::string_view piece, std::vector<TokenId>& out) const {
        const std::shared_lock lock(mutex_);
        const auto found = ids_.find(piece);
        if (found == ids_.end()) return false;
        out.insert(out.end(), found->second.begin(), found->second.end());
        return true;
    }
    void add(std::string_view piece, std::vector<TokenId> ids) {
        const std::unique_lock lock(mutex_);
        if (ids_.size() < kEntries) ids_.emplace(piece, std::move(ids));
    }

  private:
    static constexpr std::size_t kEntries = 1U << 16U;
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const {
            return std::hash<std::string_view>{}(text);
        }
    };
    mutable std::shared_mutex mutex_;
    std::unordered_map<std::string, std::vector<TokenId>, Hash, std::equal_to<>> ids_;
};

class Bpe final : public Model {
  public:
    Bpe(const Vocabulary& vocabulary, PairTable merges, BpeOptions options)
        : vocabulary_(vocabulary), merges_(std::move(merges)), options_(std::move(options)) {
        fallback_.fill(-1);
        for (unsigned byte = 0; byte < 256; ++byte) {
            fallback_[byte] = vocabulary_.id(fmt::format("<0x{:02X}>", byte)).value_or(-1);
        }
    }

    void encode(std::string_view piece, std::vector<TokenId>& out) const override {
        if (options_.ignore_merges) {
            if (const auto whole = vocabulary_.id(piece)) {
                out.push_back(*whole);
                return;
            }
        }
        const bool cached = piece.size() <= kCachedBytes;
        if (cached && cache_.find(piece, out)) return;
        std::vector<Symbol> symbols = symbols_of(piece);
        merge(symbols);
        const auto begin = static_cast<std::ptrdiff_t>(out.size());
        for (const Symbol& symbol : symbols) {
            if (!symbol.gone) out.push_back(symbol.id);
        }
        if (cached) cache_.add(piece, std::vector<TokenId>(out.begin() + begin, out.end()));
    }

  private:
    static constexpr std::size_t kCachedBytes = 256;

    std::vector<Symbol> symbols_of(std::string_view piece) const {
        std::vector<Symbol> symbols;
        symbols.reserve(piece.size());
        const auto add = [&](TokenId id) {
            const auto at = static_cast<std::int32_t>(symbols.size());
            if (at > 0) symbols.back().next = at;
            symbols.push_back({id, at - 1, -1, false});
        };
        bool unknown_waits =
            false;  // an unknown token is added when the run of unknown characters has ended
        std::string changed;
        for (std::size_t at = 0; at < piece.size();) {
            const std::size_t begin = at;
            static_cast<void>(next_code_point(piece, at));
            std::string_view character = piece.substr(begin, at - begin);
            if (!options_.prefix.empty() || !options_.suffix.empty()) {
                changed = (begin > 0 ? options_.prefix : "") + std::string(character) +
                          (at == piece.size() ? options_.suffix : "");
                character = changed;
            }
            if (const auto id = vocabulary_.id(character)) {
                if (std::exchange(unknown_waits, false)) add(*options_.unknown);
                add(*id);
            } else if (options_.byte_fallback && has_all_bytes(character)) {
                for (const char byte : character) add(fallback_[static_cast<unsigned char>(byte)]);
            } else if (options_.unknown) {
                if (unknown_waits && !options_.fuse_unknown) add(*options_.unknown);
                unknown_waits = true;
            }
        }
        if (unknown_waits) add(*options_.unknown);
        return symbols;
    }

    bool has_all_bytes(std::string_view character) const {
        return std::all_of(character.begin(), character.end(), [&](char byte) {
            return fallback_[static_cast<unsigned char>(byte)] >= 0;
        });
    }

    // The pair with the lowest rank, leftmost first, until no pair has a merge: n log n in the
    // piece's length.
    void merge(std::vector<Symbol>& symbols) const {
        std::priority_queue<Candidate, std::vector<Candidate>, Later> queue;
        const auto at = [&](std::int32_t position) -> Symbol& {
            return symbols[static_cast<std::size_t>(position)];
        };
        const auto consider = [&](std::int32_t left, std::int32_t right) {
            if (left < 0 || right < 0) return;
            if (const Merge* found = merges_.find(at(left).id, at(right).id)) {
                queue.push({found->rank, left, found->result});
            }
        };
        for (std::int32_t i = 1; i < static_cast<std::int32_t>(symbols.size()); ++i)
            consider(i - 1, i);
        while (!queue.empty()) {
            const Candidate best = queue.top();
            queue.pop();
            Symbol& left = at(best.left);
            if (left.gone || left.next < 0) continue;
            Symbol& right = at(left.next);
            const Merge* found = merges_.find(left.id, right.id);
            if (found == nullptr || found->result != best.result)
                continue;  // the pair has changed since
            left.id = best.result;
            right.gone = true;
            left.next = right.next;
            if (right.next >= 0) at(right.next).previous = best.left;
            consider(left.previous, best.left);
            consider(best.left, left.next);
        }
    }

    const Vocabulary& vocabulary_;
    PairTable merges_;
    BpeOptions options_;
    std::array<TokenId, 256> fallback_{};
    mutable Cache cache_;
};

// "left right" in older files, ["left", "right"] in newer ones.
std::pair<std::string, std::string> pair_of(const Json& entry, std::string_view where) {
    if (entry.is_string()) {
        const auto& text = entry.get_ref<const std::string&>();
        const std::size_t space = text.find(' ');
        if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
            return {text.substr(0, space), text.substr(space + 1)};
        }
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
               entry[1].is_string()) {
        return {entry[0].get<std::string>(), entry[1].get<std::string>()};
    }
    throw BadInput(
        fmt::format("{}: a merge should be \"left right\" or [\"left\", \"right\"], found {}",
                    where, entry.dump()));
}

PairTable read_merges(const Json& list, const Vocabulary& vocabulary, std::size_t prefix_size,
                      std::string_view where) {
    PairTable merges(list.size());
    std::int32_t rank = 0;
    for (const Json& entry : list) {
        const auto [left, right] = pair_of(entry, where);
        const auto id_of = [&](const std::string& token) {
            const auto id = vocabulary.id(token);
            require(id.has_value(),
                    "{}: merge {} ({}) needs the token \"{}\", which is not in the vocabulary",
                    where, rank, entry.dump(), token);
            return *id;
        };
        const std::string result = left + right.substr(std::min(prefix_size, right.size()));
        merges.insert(id_of(left), id_of(right), {rank, id_of(result)});
        ++rank;
    }
    return merges;
}

}  // namespace

std::unique_ptr<Model> make_bpe(const Json& json, const Vocabulary& vocabulary,
                                std::string_view where) {
    BpeOptions options;
    const Json* dropout = member(json, "dropout");
    require(dropout == nullptr || (dropout->is_number() && dropout->get<double>() == 0.0),
            "{}: \"dropout\" makes encoding random, which is not supported; set it to null", where);
    options.prefix = string_member_or(json, "continuing_subword_prefix", "", where);
    options.suffix = string_member_or(json, "end_of_word_suffix", "", where);
    options.fuse_unknown = bool_member_or(json, "fuse_unk", false, where);
    options.byte_fallback = bool_member_or(json, "byte_fallback", false, where);
    options.ignore_merges = bool_member_or(json, "ignore_merges", false, where);
    const std::string unknown = string_member_or(json, "unk_token", "", where);
    if (!unknown.empty()) {
        options.unknown = vocabulary.id(unknown);
        require(options.unknown.has_value(),
                "{}: \"unk_token\" is \"{}\", which is not in the vocabulary", where, unknown);
    }
    PairTable merges =
        read_merges(array_member(json, "merges", where), vocabulary, options.prefix.size(), where);
    return std::make_unique<Bpe>(vocabulary, std::move(merges), std::move(options));
}

}  // namespace rankwise::text
