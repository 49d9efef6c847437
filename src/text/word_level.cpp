#include <nlohmann/json.hpp>

#include "src/base/error.hpp"
#include "src/text/model.hpp"

namespace rankwise::text {
namespace {

class WordLevel final : public Model {
  public:
    WordLevel(const Vocabulary& vocabulary, std::string unknown, std::string where)
        : vocabulary_(vocabulary), unknown_(std::move(unknown)), where_(std::move(where)) {}

    void encode(std::string_view piece, std::vector<TokenId>& out) const override {
        std::optional<TokenId> id = vocabulary_.id(piece);
        if (!id) id = vocabulary_.id(unknown_);
        require(id.has_value(),
                "{}: \"{}\" is not in the vocabulary, and there is no unknown token", where_,
                piece);
        out.push_back(*id);
    }

  private:
    const Vocabulary& vocabulary_;
    std::string unknown_;
    std::string where_;
};

}  // namespace

std::unique_ptr<Model> make_word_level(const Json& json, const Vocabulary& vocabulary,
                                       std::string_view where) {
    return std::make_unique<WordLevel>(
        vocabulary, string_member_or(json, "unk_token", "<unk>", where), std::string(where));
}

}  // namespace rankwise::text
