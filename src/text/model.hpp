// The model of a tokenizer file: a piece of text to ids. Private to src/text.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "src/text/json_fields.hpp"
#include "src/text/vocabulary.hpp"

namespace rankwise::text {

class Model {
  public:
    virtual ~Model() = default;
    /// Appends the ids of one piece, which is not empty. May be called from several threads at
    /// once.
    /// @throws BadInput if a part has no token and there is no unknown token.
    virtual void encode(std::string_view piece, std::vector<TokenId>& out) const = 0;
};

/// Byte-pair encoding (Sennrich et al. 2016), with the options byte_fallback, fuse_unk,
/// ignore_merges, continuing_subword_prefix and end_of_word_suffix.
/// @param vocabulary  outlives the model
[[nodiscard]] std::unique_ptr<Model> make_bpe(const Json& json, const Vocabulary& vocabulary,
                                              std::string_view where);

/// A piece is one token.
[[nodiscard]] std::unique_ptr<Model> make_word_level(const Json& json, const Vocabulary& vocabulary,
                                                     std::string_view where);

}  // namespace rankwise::text
