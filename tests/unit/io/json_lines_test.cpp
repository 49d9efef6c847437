#include "io/json_lines.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/io/scratch.hpp"

namespace rankwise::io {
namespace {

using nlohmann::json;
using test::expect_error;
using test::Scratch;

class JsonLines : public testing::Test {
  protected:
    std::vector<std::pair<std::string, json>> rows(const std::string& text) {
        test::put(path_, text);
        std::vector<std::pair<std::string, json>> all;
        read_json_lines(path_, [&](const json& object, const std::string& where) {
            all.emplace_back(where, object);
        });
        return all;
    }
    Scratch scratch_;
    Path path_ = scratch_ / "train.jsonl";
};

TEST_F(JsonLines, RowsComeWithTheirPlaceAndEmptyLinesAreSkipped) {
    const auto all = rows("\xEF\xBB\xBF{\"a\": 1}\n\n  \r\n{\"a\": \"größe\"}\r\n{\"a\": 3}");
    ASSERT_EQ(all.size(), 3U);
    EXPECT_EQ(all[1].first, path_.string() + ":4");
    EXPECT_EQ(all[1].second.at("a"), "größe");
    EXPECT_EQ(all[2].second.at("a"), 3);
}

TEST_F(JsonLines, ABadLineIsNamed) {
    expect_error<BadInput>([&] { rows("{}\n{\"a\": \n"); }, {"train.jsonl:2", "no JSON"});
    expect_error<BadInput>([&] { rows("{}\n[1]\n"); }, {"train.jsonl:2", "object", "array"});
    expect_error<BadInput>([&] { rows("{\"a\": \"\xFF\"}\n"); }, {"train.jsonl:1", "UTF-8"});
    expect_error<BadInput>([&] { rows(std::string(kMaxJsonLine + 1, ' ')); },
                           {"train.jsonl:1", "67108865 bytes"});
}

TEST_F(JsonLines, AMissingOrEmptyFileIsNamed) {
    expect_error<BadInput>([&] { rows(""); }, {"train.jsonl", "no rows"});
    expect_error<BadInput>([&] { rows("\n\n"); }, {"train.jsonl", "no rows"});
    const auto read = [](const Path& path) {
        read_json_lines(path, [](const json&, const std::string&) {});
    };
    expect_error<BadInput>([&] { read(scratch_ / "gone.jsonl"); }, {"gone.jsonl", "cannot open"});
    expect_error<BadInput>([&] { read(scratch_.path()); },
                           {scratch_.path().string(), "cannot open"});
}

TEST_F(JsonLines, FieldsAreCheckedForPresenceAndType) {
    const json object =
        json::parse(R"({"text": "x", "n": -3, "big": 18446744073709551615, "r": 0.5})");
    EXPECT_EQ(text_field(object, "text", "f:1"), "x");
    EXPECT_EQ(int_field(object, "n", "f:1"), -3);
    EXPECT_EQ(number_field(object, "n", "f:1"), -3.0);
    EXPECT_EQ(number_field(object, "r", "f:1"), 0.5);
    expect_error<BadInput>([&] { (void)text_field(object, "txt", "f:1"); },
                           {"f:1", "'txt'", "big, n, r, text"});
    expect_error<BadInput>([&] { (void)text_field(object, "n", "f:1"); },
                           {"'n' must be text, found -3"});
    expect_error<BadInput>([&] { (void)int_field(object, "r", "f:1"); },
                           {"64-bit integer, found 0.5"});
    expect_error<BadInput>([&] { (void)int_field(object, "big", "f:1"); }, {"64-bit integer"});
    expect_error<BadInput>([&] { (void)number_field(object, "text", "f:1"); }, {"a finite number"});
}

}  // namespace
}  // namespace rankwise::io
