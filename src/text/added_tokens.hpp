// Tokens that are found in text before anything else is done to it. Private to src/text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/trajectory.hpp"
#include "src/text/json_fields.hpp"

namespace rankwise::text {

struct AddedToken {
    TokenId id = 0;
    std::string content;
    bool single_word = false;  ///< only where no word character touches it
    bool lstrip = false;       ///< takes white space before it
    bool rstrip = false;       ///< takes white space behind it
    bool normalized = true;    ///< looked for in normalised text
    bool special = false;      ///< left out of decoded text when asked
};

/// The file's "added_tokens" (missing: none). @throws BadInput on a malformed entry.
[[nodiscard]] std::vector<AddedToken> read_added_tokens(const Json& file, std::string_view where);

/// Finds tokens in text: leftmost first, the longest of those that begin at the same place.
class AddedTokenFinder {
  public:
    /// @param written  how the token is spelt in the text that is searched (normalised or not)
    void add(const AddedToken& token, std::string_view written);

    struct Part {
        std::size_t begin = 0;
        std::size_t end = 0;
        TokenId id = -1;  ///< -1: text between tokens
    };
    /// The text, which may be empty, as parts from left to right.
    [[nodiscard]] std::vector<Part> split(std::string_view text) const;

  private:
    /// The longest token that begins at `at`: its position in tokens_ and its size, or {-1, 0}.
    [[nodiscard]] std::pair<std::int32_t, std::size_t> longest_at(std::string_view text,
                                                                  std::size_t at) const;

    std::vector<AddedToken> tokens_;
    std::vector<std::int32_t> node_token_{-1};               // per node of the byte trie
    std::unordered_map<std::uint64_t, std::int32_t> edges_;  // node * 256 + byte
};

}  // namespace rankwise::text
