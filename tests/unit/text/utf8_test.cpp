#include "src/text/utf8.hpp"

#include <gtest/gtest.h>

#include "src/base/error.hpp"
#include "src/text/regex.hpp"
#include "src/text/unicode.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::text {
namespace {

constexpr const char* kBad = "\xEF\xBF\xBD";

TEST(Utf8, RoundTripsEveryCodePoint) {
    for (char32_t point = 0; point <= 0x10FFFF; ++point) {
        if (point >= 0xD800 && point <= 0xDFFF) continue;
        std::string text;
        append_utf8(text, point);
        ASSERT_EQ(first_invalid_utf8(text), std::nullopt);
        ASSERT_EQ(static_cast<int>(text.size()), utf8_length(static_cast<unsigned char>(text[0])));
        std::size_t at = 0;
        ASSERT_EQ(next_code_point(text, at), point);
        ASSERT_EQ(at, text.size());
    }
}

TEST(Utf8, FindsTheFirstByteThatIsNot) {
    EXPECT_EQ(first_invalid_utf8("abc"), std::nullopt);
    EXPECT_EQ(first_invalid_utf8("ab\xFF"), 2U);
    EXPECT_EQ(first_invalid_utf8("a\xC3"), 1U);             // cut
    EXPECT_EQ(first_invalid_utf8("\xC0\x80"), 0U);          // overlong
    EXPECT_EQ(first_invalid_utf8("\xED\xA0\x80"), 0U);      // surrogate
    EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0U);  // beyond 10FFFF
    EXPECT_EQ(first_invalid_utf8("\xE0\x9F\xBF"), 0U);      // overlong
    EXPECT_EQ(first_invalid_utf8("\x80"), 0U);
}

// The examples of the Unicode standard 15.0, tables 3-8 to 3-11.
TEST(Utf8, ReplacesMaximalSubpartsOfIllFormedSequences) {
    const auto expect = [](std::string_view bytes, int bad_before_41, int bad_after) {
        std::string expected;
        for (int i = 0; i < bad_before_41; ++i) expected += kBad;
        expected += "A";
        for (int i = 0; i < bad_after; ++i) expected += kBad;
        EXPECT_EQ(to_utf8_lossy(bytes), expected);
    };
    expect("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", 8, 0);
    expect("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", 8, 0);
    expect("\xF4\x91\x92\x93\xFF\x41\x80\xBF", 5, 2);
    EXPECT_EQ(to_utf8_lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"),
              std::string(kBad) + kBad + kBad + kBad + "A");
}

TEST(Utf8, HoldsBackWhatMayStillBecomeACharacter) {
    LossyUtf8 lossy;
    std::string out;
    lossy.push("\xF0\x9F", out);
    EXPECT_EQ(out, "");
    lossy.push("\x98", out);
    lossy.push("\x80!", out);
    EXPECT_EQ(out, "\xF0\x9F\x98\x80!");
    lossy.push("\xE2\x82", out);
    lossy.finish(out);
    EXPECT_EQ(out, "\xF0\x9F\x98\x80!\xEF\xBF\xBD");
}

TEST(Unicode, LowersAndSplits) {
    EXPECT_EQ(lower_case("ÀB ΣŠ"), "àb σš");
    EXPECT_EQ(split_white_space(" a\u00a0bc\u2003\n d "),
              (std::vector<std::string>{"a", "bc", "d"}));
    EXPECT_TRUE(split_white_space("").empty());
}

TEST(Regex, FindsMatchesAndNamesWhatIsMalformed) {
    std::vector<Match> matches;
    Regex(R"(\d*)", "x").find_all("a12é3", matches);
    EXPECT_EQ(matches, (std::vector<Match>{{1, 3}, {5, 6}}));
    matches.clear();
    Regex(R"([^\s]+|\s)", "x").find_all("\u180e\u2003", matches);  // U+180E is no white space
    EXPECT_EQ(matches, (std::vector<Match>{{0, 3}, {3, 6}}));
    EXPECT_THROW_WITH(Regex("(a", "file.json"), BadInput,
                      "file.json: the regular expression \"(a\" is not understood");
    matches.clear();
    const Regex slow(R"((a+)+$)", "x");
    EXPECT_THROW_WITH(slow.find_all(std::string(40, 'a') + "b", matches), BadInput,
                      "gives up on a text of 41 bytes");
    matches.clear();
    Regex(quote_regex("a.b*(c)\\"), "x").find_all("a.b*(c)\\", matches);
    EXPECT_EQ(matches, (std::vector<Match>{{0, 8}}));
}

}  // namespace
}  // namespace rankwise::text
