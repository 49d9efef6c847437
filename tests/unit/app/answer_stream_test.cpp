#include "src/app/answer_stream.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace rankwise::app {
namespace {

using testing::ElementsAre;

/// One token a byte, as byte-level vocabularies spell them; id 256 is special.
text::Tokenizer bytes() {
    std::string vocabulary;
    int moved = 256;  // bytes that are no visible character stand beyond those that are
    for (int byte = 0; byte < 256; ++byte) {
        const bool visible =
            (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD && byte < 0x100);
        vocabulary += fmt::format(R"("\u{:04X}": {},)", visible ? byte : moved++, byte);
    }
    return text::Tokenizer::from_json(
        R"({"added_tokens": [{"id": 256, "content": "<end>", "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false}],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "unk_token": null, "merges": [], "vocab": {)" +
            vocabulary + R"("<end>": 256}}})",
        "bytes");
}

class AnswerStreamTest : public testing::Test {
  protected:
    std::vector<std::string> pieces_;
    AnswerStream stream_{bytes(), [](std::int64_t answer) { return fmt::format("#{} ", answer); },
                         [this](std::string_view text) { pieces_.emplace_back(text); }};

    void tokens(std::int64_t answer, std::string_view text) {
        for (const char byte : text) stream_.token(answer, static_cast<unsigned char>(byte));
    }
    std::string take() {
        std::string text;
        for (const std::string& piece : pieces_) text += piece;
        pieces_.clear();
        return text;
    }
};

TEST_F(AnswerStreamTest, TheFirstAnswerFlowsTokenByToken) {
    stream_.token(0, 'a');
    EXPECT_EQ(take(), "#0 a");
    stream_.token(0, 'b');
    stream_.token(0, 'c');
    EXPECT_THAT(pieces_, ElementsAre("b", "c"));
    stream_.end(0);
    EXPECT_EQ(take(), "bc\n");
}

TEST_F(AnswerStreamTest, ACharacterComesWhole) {
    tokens(0, "\xE2\x82");
    EXPECT_EQ(take(), "#0 ");
    tokens(0, "\xAC");
    EXPECT_EQ(take(), "€");
    tokens(0, "\xE2\x82");
    stream_.end(0);
    EXPECT_EQ(take(), "\uFFFD\n");  // as decode() of the whole answer
}

TEST_F(AnswerStreamTest, LaterAnswersWaitUntilThoseBeforeAreWhole) {
    tokens(2, "late");
    stream_.end(2);
    tokens(1, "mid");
    EXPECT_EQ(take(), "");
    tokens(0, "first");
    EXPECT_EQ(take(), "#0 first");
    stream_.end(0);
    EXPECT_EQ(take(), "\n#1 mid");
    tokens(1, "dle");
    EXPECT_EQ(take(), "dle");
    stream_.end(1);
    EXPECT_EQ(take(), "\n#2 late\n");
}

TEST_F(AnswerStreamTest, AnAnswerWithoutTextIsALineAndSpecialTokensAreNotShown) {
    stream_.token(0, 256);
    stream_.end(0);
    stream_.end(1);
    EXPECT_EQ(take(), "#0 \n#1 \n");
}

}  // namespace
}  // namespace rankwise::app
