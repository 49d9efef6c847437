#include "src/text/tokenizer.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "src/base/error.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::text {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Characters a, b, c and "ab"; bytes fall back; <s> and </s> are special.
Json small() {
    return Json::parse(R"({
        "added_tokens": [{"id": 4, "content": "<s>", "special": true}, {"id": 5, "content": "</s>", "special": true}],
        "normalizer": null, "pre_tokenizer": null, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
                           "special_tokens": {"<s>": {"ids": [4]}}},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "<0xC3>": 6, "<0xA9>": 7}, "merges": ["a b"], "byte_fallback": true}})");
}

Tokenizer load(const Json& json) {
    return Tokenizer::from_json(json.dump(), "t.json");
}

void refuses(const char* pointer, const Json& value, const char* message) {
    Json json = small();
    json[Json::json_pointer(pointer)] = value;
    EXPECT_THROW_WITH(static_cast<void>(load(json)), BadInput, message);
}

class TokenizerFiles : public testing::Test {
  protected:
    void SetUp() override {
        folder_ = fs::temp_directory_path() / ("rankwise_tokenizer_" + std::to_string(getpid()));
        fs::create_directories(folder_);
        write("tokenizer.json", small().dump());
    }
    void TearDown() override { fs::remove_all(folder_); }
    void write(const char* name, const std::string& content) {
        std::ofstream(folder_ / name) << content;
    }
    fs::path folder_;
};

TEST(Tokenizer, EncodesDecodesAndKnowsItsTokens) {
    const Tokenizer tokenizer = load(small());
    EXPECT_EQ(tokenizer.encode("abc</s>"), (std::vector<TokenId>{3, 2, 5}));
    EXPECT_EQ(tokenizer.encode("b", true), (std::vector<TokenId>{4, 1}));
    EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{4, 3, 2, 5}), "<s>abc</s>");
    EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{4, 3, 2, 5}, true), "abc");
    EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{-1, 3, 99}), "ab");
    EXPECT_EQ(tokenizer.vocab_size(), 8);
    EXPECT_EQ(tokenizer.id("ab"), 3);
    EXPECT_EQ(tokenizer.id("ba"), std::nullopt);
    EXPECT_EQ(tokenizer.token(5), "</s>");
    EXPECT_EQ(tokenizer.token(8), "");
    EXPECT_TRUE(tokenizer.is_special(4));
    EXPECT_FALSE(tokenizer.is_special(0));
    EXPECT_EQ(tokenizer.bos(), std::nullopt);
    EXPECT_TRUE(tokenizer.eos_ids().empty());
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
    EXPECT_THROW_WITH(static_cast<void>(load(small()).encode("ab\xFFz")), BadInput,
                      "not UTF-8: byte 2 of 4 is 0xFF");
}

TEST(StreamDecoder, GivesWholeCharactersAndStartsAnew) {
    StreamDecoder stream(load(small()));
    for (int round = 0; round < 2; ++round) {
        EXPECT_EQ(stream.push(0), "a");
        EXPECT_EQ(stream.push(6), "");
        EXPECT_EQ(stream.push(7), "");
        EXPECT_EQ(stream.push(1), "éb");
        EXPECT_EQ(stream.push(6), "");
        EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
    }
}

TEST(StreamDecoder, HidesSpecialTokensWhenAsked) {
    StreamDecoder stream(load(small()), true);
    EXPECT_EQ(stream.push(4) + stream.push(0) + stream.push(5) + stream.finish(), "a");
}

TEST(Tokenizer, GivesTheSameIdsToSeveralThreads) {
    const Tokenizer tokenizer = load(small());
    const std::vector<TokenId> expected = tokenizer.encode("abcabccba");
    std::vector<std::thread> threads;
    std::vector<int> wrong(4, 0);
    for (std::size_t t = 0; t < wrong.size(); ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 500; ++i) {
                wrong[t] += tokenizer.encode("abcabccba") == expected ? 0 : 1;
                static_cast<void>(
                    tokenizer.encode(std::string(static_cast<std::size_t>(i % 50), 'a')));
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Tokenizer, EncodesOneLongWordInLittleTime) {
    Json json = small();
    for (int i = 0; i < 10; ++i) {  // a, aa, aaaa, …
        const std::string half(std::size_t{1} << i, 'a');
        json["model"]["vocab"][half + half] = 10 + i;
        json["model"]["merges"].push_back(half + " " + half);
    }
    EXPECT_EQ(load(json).encode(std::string(1 << 20, 'a')), std::vector<TokenId>(1 << 10, 19));
}

TEST_F(TokenizerFiles, TakesEndsFromTheFilesBesideIt) {
    write(
        "tokenizer_config.json",
        R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null, "add_eos_token": true})");
    write("generation_config.json", R"({"eos_token_id": [2, 5], "pad_token_id": 1})");
    for (const fs::path& path : {folder_, folder_ / "tokenizer.json"}) {
        const Tokenizer tokenizer = Tokenizer::from_file(path);
        EXPECT_EQ(tokenizer.bos(), 4);
        EXPECT_EQ(tokenizer.eos(), 5);
        EXPECT_EQ(tokenizer.pad(), 1);
        EXPECT_EQ(std::vector<TokenId>(tokenizer.eos_ids().begin(), tokenizer.eos_ids().end()),
                  (std::vector<TokenId>{5, 2}));
        EXPECT_EQ(tokenizer.encode("a", true), (std::vector<TokenId>{4, 0, 5}));
    }
}

TEST_F(TokenizerFiles, TellsItsFilesWhichReadBackAsTheSameTokenizer) {
    const std::string config =
        R"({"bos_token": "<s>", "eos_token": "</s>", "add_eos_token": true})";
    const std::string generation = R"({"eos_token_id": [2, 5], "pad_token_id": 1})";
    EXPECT_EQ(Tokenizer::from_file(folder_).files().size(), 1U);
    write("tokenizer_config.json", config);
    write("generation_config.json", generation);
    const auto files = Tokenizer::from_file(folder_).files();
    ASSERT_EQ(files.size(), 3U);
    EXPECT_EQ(files[0], std::pair(std::string("tokenizer.json"), small().dump()));
    EXPECT_EQ(files[1], std::pair(std::string("tokenizer_config.json"), config));
    EXPECT_EQ(files[2], std::pair(std::string("generation_config.json"), generation));
    const Tokenizer copy =
        Tokenizer::from_json(files[0].second, "copy", files[1].second, files[2].second);
    EXPECT_EQ(copy.encode("a", true), (std::vector<TokenId>{4, 0, 5}));
    EXPECT_EQ(copy.pad(), 1);
    EXPECT_EQ(std::vector<TokenId>(copy.eos_ids().begin(), copy.eos_ids().end()),
              (std::vector<TokenId>{5, 2}));
    EXPECT_EQ(copy.files(), files);
}

TEST(Tokenizer, TakesAConfigurationFromMemory) {
    const auto read = [](std::string config) {
        return Tokenizer::from_json(small().dump(), "t.json", std::move(config));
    };
    const Tokenizer tokenizer =
        read(R"({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "c"})");
    EXPECT_EQ(tokenizer.bos(), 4);
    EXPECT_EQ(tokenizer.eos(), 5);
    EXPECT_EQ(tokenizer.pad(), 2);
    ASSERT_EQ(tokenizer.eos_ids().size(), 1U);
    EXPECT_EQ(tokenizer.eos_ids()[0], 5);
    EXPECT_THROW_WITH(static_cast<void>(read("{")), BadInput, "t.json (configuration): not JSON");
}

TEST_F(TokenizerFiles, AddsABosThatOnlyTheConfigAsksFor) {
    Json json = small();
    json["post_processor"] = nullptr;
    write("tokenizer.json", json.dump());
    write("tokenizer_config.json", R"({"bos_token": "<s>", "add_bos_token": true})");
    EXPECT_EQ(Tokenizer::from_file(folder_).encode("a", true), (std::vector<TokenId>{4, 0}));
}

TEST_F(TokenizerFiles, NamesTheFileThatIsWrong) {
    const auto read = [&] { static_cast<void>(Tokenizer::from_file(folder_)); };
    EXPECT_THROW_WITH(static_cast<void>(Tokenizer::from_file(folder_ / "none.json")), BadInput,
                      "none.json: there is no such file");
    write("tokenizer_config.json", "{");
    EXPECT_THROW_WITH(read(), BadInput, "tokenizer_config.json: not JSON");
    write("tokenizer_config.json", R"({"eos_token": "<end>"})");
    EXPECT_THROW_WITH(read(), BadInput,
                      "tokenizer_config.json: \"eos_token\" is \"<end>\", which is not a token of");
    write("tokenizer_config.json", R"({"eos_token": 3})");
    EXPECT_THROW_WITH(read(), BadInput, "\"eos_token\" should be text, found number");
    write("tokenizer_config.json", "{}");
    write("generation_config.json", R"({"eos_token_id": "x"})");
    EXPECT_THROW_WITH(
        read(), BadInput,
        "generation_config.json: \"eos_token_id\": expected a whole number, found \"x\"");
    write("generation_config.json", R"({"eos_token_id": -1})");
    EXPECT_THROW_WITH(read(), BadInput, "expected a number from 0");
    write("generation_config.json", "[]");
    EXPECT_THROW_WITH(read(), BadInput, "expected a JSON object, found array");
    fs::create_directories(folder_ / "sub" / "tokenizer.json");
    EXPECT_THROW_WITH(static_cast<void>(Tokenizer::from_file(folder_ / "sub")), BadInput,
                      "expected a file, found a folder");
}

TEST(Tokenizer, RefusesWhatItDoesNotKnow) {
    refuses("/model/type", "Unigram", "t.json: model: the kind \"Unigram\" is not known");
    refuses("/normalizer", {{"type", "Precompiled"}},
            "t.json: normalizer: the kind \"Precompiled\" is not known");
    refuses("/pre_tokenizer", {{"type", "UnicodeScripts"}},
            "t.json: pre_tokenizer: the kind \"UnicodeScripts\" is not known");
    refuses("/decoder", {{"type", "CTC"}}, "t.json: decoder: the kind \"CTC\" is not known");
    refuses("/post_processor", {{"type", "BertProcessing"}},
            "t.json: post_processor: the kind \"BertProcessing\" is not known");
    refuses("/model/dropout", 0.1, "\"dropout\" makes encoding random");
    refuses("/pre_tokenizer",
            {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Odd"}},
            "the behavior \"Odd\" is not known");
    refuses("/pre_tokenizer", {{"type", "Metaspace"}, {"prepend_scheme", "odd"}},
            "\"prepend_scheme\" should be always, first or never");
}

TEST(Tokenizer, RefusesDamagedFiles) {
    EXPECT_THROW_WITH(static_cast<void>(Tokenizer::from_json("{\"model\":", "t.json")), BadInput,
                      "t.json: not JSON");
    EXPECT_THROW_WITH(static_cast<void>(Tokenizer::from_json("3", "t.json")), BadInput,
                      "t.json: expected a JSON object");
    EXPECT_THROW_WITH(static_cast<void>(Tokenizer::from_json("{}", "t.json")), BadInput,
                      "t.json: \"model\" is missing");
    refuses("/model/vocab", Json::array(), "\"vocab\" should be an object");
    refuses("/model/vocab/a", "x", "the id of \"a\": expected a whole number");
    refuses("/model/vocab/a", 1, "id 1 is given to");
    refuses("/model/vocab/a", 1 << 24, "the id of \"a\" should be from 0 to");
    refuses("/model/vocab/a", 3000000000U, "expected a number from 0 to 2147483647");
    refuses("/model/merges", 4, "\"merges\" should be a list");
    refuses("/model/merges", {"a b c"}, "a merge should be \"left right\"");
    refuses("/model/merges", {Json::array({"a"})}, "a merge should be");
    refuses("/model/merges", {"a z"}, "needs the token \"az\", which is not in the vocabulary");
    refuses("/model/merges", {Json::array({"a", "b", "c"})}, "a merge should be");
    refuses("/model/unk_token", "<unk>",
            "\"unk_token\" is \"<unk>\", which is not in the vocabulary");
    refuses("/model/byte_fallback", "yes", "\"byte_fallback\" should be true or false");
    refuses("/added_tokens", 3, "\"added_tokens\" should be a list");
    refuses("/added_tokens/0", 3, "added_tokens entry 0 should be an object");
    refuses("/added_tokens/0/content", "", "\"content\" is empty");
    refuses("/added_tokens/0/id", 0, "id 0 is given to \"a\" and to \"<s>\"");
    refuses("/added_tokens/0/content", "a", "\"a\" has the ids");
    refuses("/normalizer", {{"type", "Replace"}, {"pattern", "x"}, {"content", ""}},
            "\"pattern\" should be {\"String\"");
    refuses("/normalizer", {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", ""}},
            "\"pattern\" is an empty text");
    refuses("/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "("}}}, {"content", ""}},
            "is not understood");
    refuses("/decoder", {{"type", "Strip"}, {"content", "ab"}, {"start", 1}, {"stop", 0}},
            "should be one character");
    refuses("/post_processor/single", Json::array(), "should have the sequence A once");
    refuses("/post_processor/single/1/Sequence/id", "B", "should have the sequence A once");
    refuses("/post_processor/special_tokens", Json::object(), "has no entry \"<s>\"");
}

TEST(Tokenizer, NeedsAnUnknownTokenForUnknownWords) {
    const Json json = {
        {"model", {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}, {"unk_token", "?"}}}};
    EXPECT_THROW_WITH(static_cast<void>(load(json).encode("b")), BadInput,
                      "\"b\" is not in the vocabulary");
    EXPECT_EQ(load(json).encode("a"), std::vector<TokenId>{0});
}

}  // namespace
}  // namespace rankwise::text
