// Tokens and their ids. Private to src/text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/trajectory.hpp"
#include "src/text/json_fields.hpp"

namespace rankwise::text {

class Vocabulary {
  public:
    Vocabulary() = default;
    /// @param json  an object {token: id}
    /// @throws BadInput on an id that is negative, too large or given twice.
    Vocabulary(const Json& json, std::string_view where);

    /// @throws BadInput if the id belongs to another token.
    void add(std::string token, TokenId id, std::string_view where);

    [[nodiscard]] std::optional<TokenId> id(std::string_view token) const {
        const auto found = ids_.find(token);
        if (found == ids_.end()) return std::nullopt;
        return found->second;
    }
    /// Empty if there is no such token.
    [[nodiscard]] const std::string& token(TokenId id) const;
    [[nodiscard]] bool has(TokenId id) const;
    /// Largest id + 1.
    [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }

  private:
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const {
            return std::hash<std::string_view>{}(text);
        }
    };
    std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> ids_;
    std::vector<std::optional<std::string>> tokens_;
};

}  // namespace rankwise::text
