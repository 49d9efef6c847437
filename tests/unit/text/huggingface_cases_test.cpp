// Small tokenizers with every option, against ids and texts of the Rust library `tokenizers`
// 0.22.2.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "src/text/tokenizer.hpp"

namespace rankwise::text {
namespace {

using Json = nlohmann::json;

const std::vector<Json>& cases() {
    static const std::vector<Json> all = [] {
        std::ifstream in(std::string(RANKWISE_SOURCE_DIR) +
                         "/tests/unit/text/fixtures/huggingface_cases.jsonl");
        std::vector<Json> rows;
        for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
        return rows;
    }();
    return all;
}

class HuggingFaceCases : public testing::TestWithParam<std::size_t> {};

TEST_P(HuggingFaceCases, GivesTheSameIdsAndTexts) {
    const Json& each = cases()[GetParam()];
    const auto tokenizer = Tokenizer::from_json(each["tokenizer"].dump(), "tokenizer.json");
    for (const Json& row : each["encode"]) {
        const auto text = row["text"].get<std::string>();
        const auto ids = row["ids"].get<std::vector<TokenId>>();
        EXPECT_EQ(tokenizer.encode(text), ids) << row["text"];
        EXPECT_EQ(tokenizer.encode(text, true), row["special"].get<std::vector<TokenId>>())
            << row["text"];
        // null: the Rust library fails there.
        for (const bool skip : {false, true}) {
            const Json& decoded = row[skip ? "skipped" : "decoded"];
            if (decoded.is_null()) continue;
            EXPECT_EQ(tokenizer.decode(ids, skip), decoded.get<std::string>()) << row["text"];
        }
    }
    for (const Json& row : each["decode"]) {
        if (row["decoded"].is_null()) continue;
        EXPECT_EQ(tokenizer.decode(row["ids"].get<std::vector<TokenId>>()),
                  row["decoded"].get<std::string>())
            << row["ids"];
    }
}

std::string name_of(const testing::TestParamInfo<std::size_t>& each) {
    return cases()[each.param]["name"].get<std::string>();
}
INSTANTIATE_TEST_SUITE_P(Options, HuggingFaceCases, testing::Range(std::size_t{0}, cases().size()),
                         name_of);

}  // namespace
}  // namespace rankwise::text
