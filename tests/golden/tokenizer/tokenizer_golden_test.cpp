// Every tokenizer of the data folder against ids and texts made by the Rust library `tokenizers`.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "src/text/tokenizer.hpp"
#include "tests/support/test_data.hpp"

namespace rankwise::text {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::vector<Json> lines_of(const fs::path& path) {
    std::ifstream in(path);
    std::vector<Json> lines;
    for (std::string line; std::getline(in, line);) {
        if (!line.empty()) lines.push_back(Json::parse(line));
    }
    return lines;
}

/// Folders with goldens. One without a tokenizer.json has a patch of the added tokens of another's
/// file.
std::vector<fs::path> folders() {
    std::vector<fs::path> found;
    const auto data = test::data_folder();
    if (!data) return found;
    for (const char* group : {"tokenizers", "models"}) {
        if (!fs::is_directory(*data / group)) continue;
        for (const auto& entry : fs::directory_iterator(*data / group)) {
            if (fs::exists(entry.path() / "golden_encode.jsonl") ||
                fs::exists(entry.path() / "golden_decode.jsonl")) {
                found.push_back(entry.path());
            }
        }
    }
    std::sort(found.begin(), found.end());
    return found;
}

Tokenizer load(const fs::path& folder) {
    if (fs::exists(folder / "tokenizer.json")) return Tokenizer::from_file(folder);
    std::ifstream patch_file(folder / "added_tokens_patch.json");
    std::ifstream base_file(folder.parent_path() / "deepseek_v3" / "tokenizer.json");
    Json base = Json::parse(base_file);
    for (const Json& token : Json::parse(patch_file)) {
        for (Json& present : base["added_tokens"]) {
            if (present["id"] == token["id"]) present = token;
        }
    }
    return Tokenizer::from_json(base.dump(), (folder / "tokenizer.json").string());
}

class TokenizerGolden : public testing::TestWithParam<fs::path> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TokenizerGolden);

TEST_P(TokenizerGolden, EncodesAndDecodesAsTheRustLibrary) {
    const Tokenizer tokenizer = load(GetParam());
    for (const Json& line : lines_of(GetParam() / "golden_encode.jsonl")) {
        const auto text = line["text"].get<std::string>();
        const auto ids = line["ids"].get<std::vector<TokenId>>();
        EXPECT_EQ(tokenizer.encode(text), ids) << line["cat"] << " " << line["text"];
        EXPECT_EQ(tokenizer.decode(ids), line["decoded"].get<std::string>()) << line["text"];
        if (line.contains("decoded_skip_special")) {
            EXPECT_EQ(tokenizer.decode(ids, true), line["decoded_skip_special"].get<std::string>())
                << line["text"];
        }
    }
    for (const Json& line : lines_of(GetParam() / "golden_decode.jsonl")) {
        const auto ids = line["ids"].get<std::vector<TokenId>>();
        EXPECT_EQ(tokenizer.decode(ids), line["decoded"].get<std::string>()) << line;
        if (line.contains("decoded_skip_special")) {
            EXPECT_EQ(tokenizer.decode(ids, true), line["decoded_skip_special"].get<std::string>())
                << line;
        }
    }
}

TEST_P(TokenizerGolden, StreamsWholeCharactersThatMakeUpTheDecodedText) {
    const Tokenizer tokenizer = load(GetParam());
    std::vector<Json> lines = lines_of(GetParam() / "golden_encode.jsonl");
    for (const Json& line : lines_of(GetParam() / "golden_decode.jsonl")) lines.push_back(line);
    for (const Json& line : lines) {
        StreamDecoder stream(tokenizer);
        std::string text;
        for (const Json& id : line["ids"]) {
            const std::string piece = stream.push(id.get<TokenId>());
            text += piece;
            // A continuation byte never begins a piece.
            ASSERT_TRUE(piece.empty() || (static_cast<unsigned char>(piece[0]) & 0xC0U) != 0x80U);
        }
        EXPECT_EQ(text + stream.finish(), line["decoded"].get<std::string>()) << line;
    }
}

std::string name_of(const testing::TestParamInfo<fs::path>& folder) {
    std::string name = folder.param.filename().string();
    std::replace_if(
        name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
    return name;
}
INSTANTIATE_TEST_SUITE_P(Folders, TokenizerGolden, testing::ValuesIn(folders()), name_of);

TEST(TokenizerGolden, HasFoldersToTest) {
    if (!test::data_folder()) GTEST_SKIP() << "no data folder: set RANKWISE_TEST_DATA";
    EXPECT_FALSE(folders().empty());
}

}  // namespace
}  // namespace rankwise::text
