#include "src/text/vocabulary.hpp"

#include <nlohmann/json.hpp>

#include "src/base/error.hpp"

namespace rankwise::text {
namespace {

// Ids index arrays; a file with a larger one is damaged.
constexpr TokenId kLargestId = (1 << 24) - 1;

}  // namespace

Vocabulary::Vocabulary(const Json& json, std::string_view where) {
    require(json.is_object(), "{}: \"vocab\" should be an object of tokens and ids, found {}",
            where, json.type_name());
    ids_.reserve(json.size());
    for (const auto& [token, id] : json.items()) {
        add(token, int_value(id, fmt::format("{}: the id of \"{}\"", where, token)), where);
    }
}

void Vocabulary::add(std::string token, TokenId id, std::string_view where) {
    require(id >= 0 && id <= kLargestId, "{}: the id of \"{}\" should be from 0 to {}, found {}",
            where, token, kLargestId, id);
    const auto index = static_cast<std::size_t>(id);
    if (index >= tokens_.size()) tokens_.resize(index + 1);
    require(!tokens_[index] || *tokens_[index] == token,
            "{}: id {} is given to \"{}\" and to \"{}\"", where, id, tokens_[index].value_or(""),
            token);
    tokens_[index] = token;
    const auto [found, fresh] = ids_.emplace(std::move(token), id);
    require(fresh || found->second == id, "{}: \"{}\" has the ids {} and {}", where, found->first,
            found->second, id);
}

const std::string& Vocabulary::token(TokenId id) const {
    static const std::string kNone;
    return has(id) ? *tokens_[static_cast<std::size_t>(id)] : kNone;
}

bool Vocabulary::has(TokenId id) const {
    return id >= 0 && id < size() && tokens_[static_cast<std::size_t>(id)].has_value();
}

}  // namespace rankwise::text
