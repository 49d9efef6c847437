#include "src/tasks/grade.hpp"

#include <gtest/gtest.h>

#include <sstream>

#include "src/base/error.hpp"
#include "src/tasks/countdown.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::tasks {
namespace {

RewardSet rewards() {
    const std::vector<std::string> names = {"countdown", "format",
                                            "soft_overlong(max_length=4 cache=2)"};
    return make_reward_set(names, std::vector<double>{1.0, 0.5, 1.0});
}

TEST(Grade, WritesARowForARow) {
    std::istringstream in(
        R"({"nums":[2,3],"target":6,"completion":"<think></think><answer>2*3</answer>"})"
        "\n\n"
        R"({"id":40,"completion":"<think></think><answer>2*3</answer>","finish_reason":"length","length":3})"
        "\n");
    std::ostringstream out;
    RewardSet set = rewards();
    const GradeSummary summary = grade(in, "answers.jsonl", set, out);
    EXPECT_EQ(out.str(),
              "{\"line\":1,\"id\":0,\"scores\":{\"countdown\":1.0,\"format\":1.0,\"soft_overlong\":"
              "0.0},\"reward\":1.5}\n"
              "{\"line\":3,\"id\":40,\"scores\":{\"countdown\":null,\"format\":0.0,\"soft_"
              "overlong\":-0.5},\"reward\":-0.5}\n");
    EXPECT_EQ(summary.rows, 2);
    EXPECT_EQ(summary.mean_reward, 0.5);
    ASSERT_EQ(summary.rewards.size(), 3U);
    EXPECT_EQ(summary.rewards[0].ok, 1);
    EXPECT_EQ(summary.rewards[0].none, 1);
    EXPECT_EQ(summary.rewards[0].mean, 1.0);
    EXPECT_EQ(summary.rewards[2].mean, -0.25);
}

TEST(Grade, CountsTokensWithATokenizer) {
    const auto tokenizer =
        text::Tokenizer::from_json(countdown::tokenizer_json(), "tokenizer.json");
    std::istringstream in(R"({"response":"1+2"})");
    std::ostringstream out;
    RewardSet set = rewards();
    EXPECT_EQ(grade(in, "x", set, out, &tokenizer).rewards[2].mean, -0.5);
}

TEST(Grade, NamesTheLineThatIsWrong) {
    const auto run = [](const std::string& text) {
        std::istringstream in(text);
        std::ostringstream out;
        RewardSet set = rewards();
        static_cast<void>(grade(in, "answers.jsonl", set, out));
    };
    EXPECT_THROW_WITH(run("{\"completion\":\"\"}\n{]"), BadInput, "answers.jsonl:2: not JSON");
    EXPECT_THROW_WITH(run("{}"), BadInput,
                      "answers.jsonl:1: neither \"completion\" nor \"response\" is there");
    EXPECT_THROW_WITH(run("{\"completion\":[]}"), BadInput,
                      "answers.jsonl:1: \"completion\" should be text");
    EXPECT_THROW_WITH(run("{\"completion\":\"\",\"length\":-1}"), BadInput,
                      "\"length\" should be a number of tokens");
    EXPECT_THROW_WITH(run("{\"completion\":\"\",\"finish_reason\":\"died\"}"), BadInput,
                      "\"finish_reason\" should be stop");
    EXPECT_THROW_WITH(run(""), BadInput, "answers.jsonl: there is nothing to grade");
}

TEST(Grade, SaysWhenResultsCannotBeWritten) {
    std::istringstream in("{\"completion\":\"\"}");
    std::ostringstream out;
    out.setstate(std::ios::badbit);
    RewardSet set = rewards();
    EXPECT_THROW_WITH(static_cast<void>(grade(in, "x", set, out)), EnvironmentError,
                      "line 1 cannot be written");
}

TEST(Grade, SaysWhenReadingFails) {
    std::istringstream in("{\"completion\":\"\"}\n");
    in.setstate(std::ios::badbit);
    std::ostringstream out;
    RewardSet set = rewards();
    EXPECT_THROW_WITH(static_cast<void>(grade(in, "x", set, out)), BadInput, "reading fails");
}

}  // namespace
}  // namespace rankwise::tasks
