#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "src/base/error.hpp"
#include "src/tasks/countdown.hpp"

namespace rankwise::tasks::countdown {
namespace {

constexpr std::array<std::string_view, kFirstNumber> kSymbols = {
    "<pad>", "<bos>", "<eos>",  "<think>", "</think>", "<answer>", "</answer>", ",",
    "->",    "=",     "+",      "-",       "*",        "/",        "(",         ")",
    " vs ",  " low,", " high,", " wait ",  " yes",     " give up"};

struct Words {
    std::vector<std::string> words;
    std::unordered_map<std::string_view, TokenId> ids;
};

Words make_words() {
    Words all;
    all.words.assign(kSymbols.begin(), kSymbols.end());
    for (int value = 0; value <= kLargest; ++value) all.words.push_back(std::to_string(value));
    for (std::size_t i = 0; i < all.words.size(); ++i) {
        all.ids.emplace(all.words[i], static_cast<TokenId>(i));
    }
    return all;
}

const Words& words() {
    static const Words all = make_words();
    return all;
}

nlohmann::ordered_json added_token(TokenId id) {
    return {{"id", id},        {"content", word(id)}, {"single_word", false}, {"lstrip", false},
            {"rstrip", false}, {"normalized", false}, {"special", true}};
}

}  // namespace

std::string_view word(TokenId id) {
    ensure(id >= 0 && id < kVocabulary, "{} is no token of Countdown's vocabulary of {}", id,
           kVocabulary);
    return words().words[static_cast<std::size_t>(id)];
}

TokenId id_of(std::string_view word) {
    const auto found = words().ids.find(word);
    return found == words().ids.end() ? -1 : found->second;
}

std::string text_of(std::span<const TokenId> ids) {
    std::string text;
    for (const TokenId id : ids) text += word(id);
    return text;
}

std::string tokenizer_json() {
    using Json = nlohmann::ordered_json;
    Json vocabulary = Json::object();
    for (TokenId id = 0; id < kVocabulary; ++id) vocabulary[std::string(word(id))] = id;
    Json file;
    file["version"] = "1.0";
    file["truncation"] = nullptr;
    file["padding"] = nullptr;
    file["added_tokens"] = Json::array({added_token(kPad), added_token(kBos), added_token(kEos)});
    file["normalizer"] = nullptr;
    // One alternative a token; at most one of them fits at any place, but for numbers, where two
    // digits go before one.
    file["pre_tokenizer"] = {{"type", "Split"},
                             {"pattern",
                              {{"Regex",
                                "</?think>|</?answer>|->| vs | low,| high,| wait | yes| give "
                                "up|[1-9]?[0-9]|[-,=+*/()]"}}},
                             {"behavior", "Isolated"},
                             {"invert", false}};
    const std::string bos(word(kBos));
    const Json before = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
    const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    const Json second = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
    file["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single", Json::array({before, text})},
        {"pair", Json::array({before, text, second})},
        {"special_tokens",
         {{bos, {{"id", bos}, {"ids", Json::array({kBos})}, {"tokens", Json::array({bos})}}}}}};
    file["decoder"] = {{"type", "Fuse"}};
    file["model"] = {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "<unk>"}};
    return file.dump(1) + "\n";
}

std::string tokenizer_config_json() {
    const nlohmann::ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                           {"bos_token", word(kBos)},
                                           {"eos_token", word(kEos)},
                                           {"pad_token", word(kPad)},
                                           {"add_bos_token", true},
                                           {"clean_up_tokenization_spaces", false}};
    return config.dump(1) + "\n";
}

}  // namespace rankwise::tasks::countdown
