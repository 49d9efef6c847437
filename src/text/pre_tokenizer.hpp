// Pre-tokenizers of a tokenizer file: cutting text into the pieces that the model sees. Private to
// src/text.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/json_fields.hpp"

namespace rankwise::text {

struct Piece {
    std::string text;
    bool at_start = false;  ///< begins where the whole text begins
};

/// Steps that each replace every piece by zero or more pieces. Empty: text stays one piece.
class PreTokenizer {
  public:
    PreTokenizer() = default;
    /// @param json  the file's "pre_tokenizer", or nullptr
    /// @throws BadInput for a kind that is not known.
    PreTokenizer(const Json* json, std::string_view where);

    [[nodiscard]] std::vector<Piece> operator()(Piece piece) const;

  private:
    using Step = std::function<void(Piece&&, std::vector<Piece>&)>;
    void add(const Json& json, std::string_view where);
    void add_byte_level(const Json& json, std::string_view where);
    void add_metaspace(const Json& json, std::string_view where);
    std::vector<Step> steps_;
};

}  // namespace rankwise::text
