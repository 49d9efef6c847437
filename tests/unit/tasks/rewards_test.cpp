#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "src/base/error.hpp"
#include "src/tasks/behaviour.hpp"
#include "src/tasks/countdown.hpp"
#include "src/tasks/reward.hpp"
#include "tests/support/throws.hpp"
#include "tests/unit/tasks/fixtures.hpp"

namespace rankwise::tasks {
namespace {

double reward(const RewardSpec& spec, const Problem& problem, const Answer& answer) {
    const auto value = make_reward(spec)(problem, answer);
    EXPECT_TRUE(value.has_value());
    return value.value_or(std::nan(""));
}
double on_text(const std::string& spec, const std::string& text, const Problem& problem = {}) {
    return reward(parse_reward_spec(spec), problem, {.text = text});
}

struct CountdownCase {
    std::vector<TokenId> ids;
    Problem problem;
    double accuracy = 0.0;
    double format = 0.0;
    std::vector<double> stats;
    [[nodiscard]] bool ended() const { return !ids.empty() && ids.back() == countdown::kEos; }
};

// Made with score() and trace_stats() of the recipe's Python: traces, mutated traces, cut ones,
// random tokens.
std::vector<CountdownCase> countdown_cases() {
    std::vector<CountdownCase> cases;
    for (const auto& row : fixture("countdown_cases.jsonl")) {
        CountdownCase each;
        each.ids = row["ids"].get<std::vector<TokenId>>();
        each.problem.task = "countdown";
        each.problem.nums = row["nums"].get<std::vector<std::int64_t>>();
        each.problem.target = row["target"].get<std::int64_t>();
        each.accuracy = row["accuracy"];
        each.format = row["format"];
        each.stats = row["stats"].get<std::vector<double>>();
        cases.push_back(std::move(each));
    }
    return cases;
}

const text::Tokenizer& countdown_tokenizer() {
    static const auto tokenizer =
        text::Tokenizer::from_json(countdown::tokenizer_json(), "tokenizer.json");
    return tokenizer;
}

TEST(CountdownReward, ScoresTokensAsTheRecipe) {
    const auto cases = countdown_cases();
    ASSERT_EQ(cases.size(), 400U);
    for (const CountdownCase& each : cases) {
        const std::string text = countdown_tokenizer().decode(each.ids, true);
        const Answer answer{.text = text,
                            .tokens = each.ids,
                            .length = std::ssize(each.ids),
                            .finish = each.ended() ? FinishReason::stop : FinishReason::length,
                            .tokenizer = &countdown_tokenizer()};
        EXPECT_EQ(reward({.name = "countdown"}, each.problem, answer), each.accuracy)
            << countdown::text_of(each.ids);
        EXPECT_EQ(reward({.name = "format"}, each.problem, answer), each.format)
            << countdown::text_of(each.ids);
        const Counts expected{{"cut_off", each.ended() ? 0.0 : 1.0},
                              {"tries", each.stats[0]},
                              {"sums", each.stats[2]},
                              {"wrong_sums", each.stats[1]},
                              {"repeats", each.stats[3]},
                              {"tried_again", each.stats[0] > 1 ? 1.0 : 0.0},
                              {"self_corrected", each.stats[0] > 1 ? each.accuracy : 0.0}};
        const Counts counts = behaviour(each.problem, answer);
        for (const auto& count : expected)
            EXPECT_THAT(counts, testing::Contains(count)) << countdown::text_of(each.ids);
    }
}

TEST(CountdownReward, ReadsTextOfAnyTokenizer) {
    const Problem problem = countdown::problem_of({{7, 3, 12}, 48}, 0);
    EXPECT_EQ(on_text("countdown", "<think>x</think><answer>12*(7-3)</answer>", problem), 1.0);
    EXPECT_EQ(
        on_text("countdown", "<think>hm, 5?\n</think>\n<answer> 12 * (7 - 3) </answer>", problem),
        1.0);
    EXPECT_EQ(on_text("countdown", "<think>x</think><answer>12*4</answer>", problem), 0.0);
    EXPECT_EQ(on_text("countdown", "<think>x</think><answer>12*(7-3) apples</answer>", problem),
              0.0);
    EXPECT_EQ(on_text("countdown", "<think>x</think><answer>1 2*(7-3)</answer>", problem), 0.0);
    EXPECT_EQ(on_text("countdown", "<think>x</think><answer></answer>", problem), 0.0);
    const Answer cut{.text = "<think>x</think><answer>12*(7-3)</answer>",
                     .finish = FinishReason::length};
    EXPECT_EQ(reward({.name = "countdown"}, problem, cut), 0.0);
    EXPECT_EQ(reward({.name = "format"}, problem, cut), 0.0);
    EXPECT_EQ(make_reward({.name = "countdown"})(Problem{}, {.text = "x"}), std::nullopt);
}

TEST(CountdownReward, IsExactAndNeedsNoStack) {
    const Problem third = countdown::problem_of({{1, 3, 3}, 1}, 0);
    EXPECT_EQ(on_text("countdown", "<think></think><answer>1/3*3</answer>", third), 1.0);
    EXPECT_EQ(on_text("countdown", "<think></think><answer>1/(3-3)</answer>", third), 0.0);
    const std::string deep = std::string(100000, '(') + "1/3*3" + std::string(100000, ')');
    EXPECT_EQ(on_text("countdown", "<think></think><answer>" + deep + "</answer>", third), 1.0);
    EXPECT_EQ(on_text("countdown",
                      "<think></think><answer>" + std::string(100000, '(') + "</answer>", third),
              0.0);
    Problem huge;
    huge.nums = std::vector<std::int64_t>(40, 99);
    huge.target = 1;
    std::string product = "99";
    for (int i = 1; i < 40; ++i) product += "*99";
    EXPECT_EQ(on_text("countdown", "<think></think><answer>" + product + "</answer>", huge), 0.0);
}

TEST(FormatReward, WantsEachTagOnceAndInOrder) {
    const auto format = [](const char* text) { return on_text("format", text); };
    EXPECT_EQ(format("<think>a</think><answer>b</answer>"), 1.0);
    EXPECT_EQ(format("<think></think>\n\n<answer></answer>"), 1.0);
    EXPECT_EQ(format("<think>a</think> so <answer>b</answer>"), 0.0);
    EXPECT_EQ(format(" <think>a</think><answer>b</answer>"), 0.0);
    EXPECT_EQ(format("<think>a</think><answer>b</answer>."), 0.0);
    EXPECT_EQ(format("<think>a<think></think><answer>b</answer>"), 0.0);
    EXPECT_EQ(format("<think><answer>b</answer></think>"), 0.0);
    EXPECT_EQ(format("<answer>b</answer><think>a</think>"), 0.0);
    EXPECT_EQ(format("<think>a</think><answer>b"), 0.0);
    EXPECT_EQ(format(""), 0.0);
}

TEST(FormatReward, RefusesSpecialTokensInsideAnAnswer) {
    std::vector<TokenId> ids =
        countdown_tokenizer().encode("<think>1</think><answer>2</answer><eos>");
    const auto format = [&] {
        const std::string text = countdown_tokenizer().decode(ids, true);
        return reward({.name = "format"}, {},
                      {.text = text, .tokens = ids, .tokenizer = &countdown_tokenizer()});
    };
    EXPECT_EQ(format(), 1.0);
    ids[1] = countdown::kPad;
    EXPECT_EQ(format(), 0.0);
}

TEST(TinyzeroReward, LooksOnlyAtTheLastLineBehindTheAssistant) {
    Problem problem;
    problem.nums = {2, 3};
    problem.target = 6;
    problem.prompt = "User: <answer>2*3</answer>\nAssistant: hm\n<think>";
    EXPECT_EQ(on_text("tinyzero", "</think>\n<answer>2*3</answer>", problem), 1.0);
    EXPECT_EQ(on_text("tinyzero", "<answer>2+3</answer><answer> 3*2\t</answer> ok", problem), 1.0);
    EXPECT_EQ(on_text("tinyzero", "<answer>3*2</answer><answer>", problem), 1.0);
    EXPECT_EQ(on_text("tinyzero", "<answer>3*2</answer>\n", problem), 0.0);
    EXPECT_EQ(on_text("tinyzero(format_score=0.25)", "<answer>3+2</answer>", problem), 0.25);
    EXPECT_EQ(on_text("tinyzero", "<answer>3*2*1</answer>", problem), 0.1);
    EXPECT_EQ(on_text("tinyzero", "<answer>99999999999999999999*2</answer>", problem), 0.1);
    EXPECT_EQ(on_text("tinyzero", "<answer>2*x3</answer>", problem), 0.1);
    problem.prompt = "no mark";
    EXPECT_EQ(on_text("tinyzero", "<answer>2*3</answer>", problem), 0.0);
    EXPECT_EQ(make_reward({.name = "tinyzero"})(Problem{}, {.text = "x"}), std::nullopt);
}

TEST(SoftOverlong, IsDaposEquation13) {
    const auto penalty = [](std::int64_t length) {
        return reward(parse_reward_spec("soft_overlong(max_length=100 cache=20)"), {},
                      {.text = "", .length = length});
    };
    EXPECT_EQ(penalty(0), 0.0);
    EXPECT_EQ(penalty(80), 0.0);
    EXPECT_EQ(penalty(81), -0.05);
    EXPECT_EQ(penalty(90), -0.5);
    EXPECT_EQ(penalty(100), -1.0);
    EXPECT_EQ(penalty(101), -1.0);
    EXPECT_THROW_WITH(static_cast<void>(make_reward(parse_reward_spec("soft_overlong(cache=0)"))),
                      BadInput, "expected 0 < cache <= max_length");
    EXPECT_THROW_WITH(
        static_cast<void>(make_reward(parse_reward_spec("soft_overlong(max_length=10)"))), BadInput,
        "cache");
}

TEST(RepeatedTries, CostTheirShareOfTheTries) {
    const auto penalty = [](const std::string& text) {
        return reward({.name = "repeated_tries", .parameters = {}},
                      countdown::problem_of({.nums = {2, 7, 5}, .target = 10}, 0), {.text = text});
    };
    EXPECT_EQ(penalty("<think>"), 0.0);
    EXPECT_EQ(penalty("<think>7-5=2,2-2=0 vs 10 low, wait 7+2=9,9+5=14 vs 10 high"), 0.0);
    EXPECT_EQ(penalty("<think>7-5=2,2-2=0 vs 10 low, wait 7+2=9,9+5=14 vs 10 high, wait "
                      "7-5=2,2-2=0 vs 10 low, wait 7+2=9,9+5=14 vs 10 high"),
              -0.5);
    EXPECT_EQ(make_reward({.name = "repeated_tries"})(Problem{}, {.text = "x"}), std::nullopt);
}

TEST(Readable, IsTheShareOfTriesThatAreWrittenOut) {
    const auto share = [](const std::string& thought) {
        return reward({.name = "readable", .parameters = {}},
                      countdown::problem_of({.nums = {2, 7, 5}, .target = 10}, 0),
                      {.text = "<think>" + thought + "</think><answer>7+(5-2)</answer>"});
    };
    EXPECT_EQ(share("5-2=3,7+3=10 vs 10 yes"), 1.0);
    EXPECT_EQ(share("7-5=2,2-2=0 vs 10 low, give up"), 1.0);
    EXPECT_EQ(share("7-5=2,2-2=0 vs 10 low, wait 5-2=3,7+3=10 vs 10 yes"), 1.0);
    EXPECT_EQ(share("7-5=2,2-2=0 wait 5-2=3,7+3=10 vs 10 yes"), 0.5);
    EXPECT_EQ(share("5-2=3,7+3=10 yes"), 0.0);
    EXPECT_EQ(share(""), 0.0);
    EXPECT_EQ(reward({.name = "readable", .parameters = {}},
                     countdown::problem_of({.nums = {2, 7, 5}, .target = 10}, 0),
                     {.text = "5-2=3,7+3=10 vs 10 yes7+(5-2)"}),
              0.0);
    EXPECT_EQ(make_reward({.name = "readable"})(Problem{}, {.text = "x"}), std::nullopt);
}

TEST(OpenR1Rewards, HoldAtTheirEdges) {
    EXPECT_EQ(on_text("open_r1_format", "<think>\n\n</think>\n<answer>\n\n</answer>\nmore"), 1.0);
    EXPECT_EQ(on_text("open_r1_format", "<think>\n</think>\n<answer>\n</answer>"), 0.0);
    EXPECT_EQ(on_text("open_r1_format", "<think>\na\n</think>\n<answer>\nb\n</answer>x"), 0.0);
    EXPECT_EQ(on_text("think_format", "<think>a</think>b"), 1.0);
    EXPECT_EQ(on_text("think_format", "<think>a</think><think>"), 0.0);
    EXPECT_EQ(on_text("think_format", "a<think></think>"), 0.0);
    EXPECT_EQ(on_text("think_format", "<think>a"), 0.0);
    EXPECT_EQ(on_text("reasoning_steps", "1. a\n- b\n* c\nNext, d"), 1.0);
    EXPECT_EQ(on_text("reasoning_steps", "a\n1. b"), 0.0);
    EXPECT_EQ(on_text("repetition_penalty(ngram_size=1)", "É é x"),
              1.0 / 3.0 * -1.0 + (1.0 - 2.0 / 3.0 - 1.0 / 3.0) * -1.0);
    EXPECT_EQ(on_text("repetition_penalty", ""), 0.0);
    Problem go;
    go.columns["language"] = "\"go\"";
    EXPECT_EQ(
        on_text("code_format", "<think>\na\n</think>\n<answer>\n```go\nx\n```\n</answer>", go),
        1.0);
    EXPECT_EQ(on_text("code_format", "<think>\na\n</think>\n<answer>\n```go\nx\n\n</answer>", go),
              0.0);
    EXPECT_THROW_WITH(
        static_cast<void>(make_reward(parse_reward_spec("repetition_penalty(ngram_size=1.5)"))),
        BadInput, "ngram_size should be a whole number");
    EXPECT_THROW_WITH(
        static_cast<void>(make_reward(parse_reward_spec("repetition_penalty(max_penalty=1)"))),
        BadInput, "should not be positive");
}

TEST(RewardTable, NamesWhatItKnowsAndWhatIsNear) {
    EXPECT_THROW_WITH(static_cast<void>(make_reward({.name = "fromat"})), BadInput,
                      "did you mean \"format\"?");
    EXPECT_THROW_WITH(static_cast<void>(make_reward({.name = "fromat"})), BadInput,
                      "known are code_format, countdown, format");
    EXPECT_THROW_WITH(static_cast<void>(make_reward({.name = "zzzzzzzzzz"})), BadInput,
                      "\"zzzzzzzzzz\"; known are");
    EXPECT_THROW_WITH(static_cast<void>(make_reward(parse_reward_spec("tinyzero(format_scor=1)"))),
                      BadInput, "no parameter \"format_scor\"; did you mean \"format_score\"?");
    EXPECT_THROW_WITH(static_cast<void>(make_reward(parse_reward_spec("format(x=1)"))), BadInput,
                      "it has none");
    EXPECT_THROW_WITH(
        static_cast<void>(make_reward({.name = "tinyzero", .parameters = {{"format_score", NAN}}})),
        BadInput, "should be finite");
    for (const RewardEntry& entry : reward_table()) {
        EXPECT_FALSE(entry.help.empty());
        EXPECT_NO_THROW(static_cast<void>(make_reward({.name = entry.name}))) << entry.name;
    }
}

TEST(RewardSpec, ReadsNameAndParameters) {
    EXPECT_EQ(parse_reward_spec(" format "), (RewardSpec{"format", {}, 1.0}));
    EXPECT_EQ(parse_reward_spec("a(x=1, y=-2.5e3;z=0)", 0.5),
              (RewardSpec{"a", {{"x", 1.0}, {"y", -2500.0}, {"z", 0.0}}, 0.5}));
    EXPECT_EQ(parse_reward_spec("a()"), (RewardSpec{"a", {}, 1.0}));
    for (const char* wrong : {"", "  ", "(x=1)"}) {
        EXPECT_THROW_WITH(static_cast<void>(parse_reward_spec(wrong)), BadInput, "name is missing");
    }
    EXPECT_THROW_WITH(static_cast<void>(parse_reward_spec("a(x=1")), BadInput,
                      "closing parenthesis");
    for (const char* wrong : {"a(x)", "a(x=)", "a(=1)", "a(x=1y)", "a(x=one)"}) {
        EXPECT_THROW_WITH(static_cast<void>(parse_reward_spec(wrong)), BadInput,
                          "expected name=number");
    }
}

TEST(Answers, AreTakenFromTrajectories) {
    Trajectory trajectory;
    trajectory.tokens = {1, 2, 3, 4};
    trajectory.segments = {
        {.speaker = Speaker::user, .begin = 0, .end = 1},
        {.speaker = Speaker::assistant, .begin = 1, .end = 4, .trainable = true}};
    trajectory.text = "abc";
    trajectory.finish_reason = FinishReason::length;
    const Answer answer = answer_of(trajectory, nullptr);
    EXPECT_EQ(answer.text, "abc");
    EXPECT_EQ(answer.length, 3);
    EXPECT_EQ(answer.tokens.size(), 3U);
    EXPECT_EQ(answer.finish, FinishReason::length);
}

}  // namespace
}  // namespace rankwise::tasks
