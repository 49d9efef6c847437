#include "src/tasks/countdown.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "src/base/error.hpp"
#include "src/text/tokenizer.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::tasks::countdown {
namespace {

std::vector<TokenId> ids_of(std::initializer_list<std::string_view> words) {
    std::vector<TokenId> ids;
    for (const auto word : words) ids.push_back(id_of(word));
    return ids;
}

TEST(CountdownVocabulary, HasTheOrderThatCheckpointsRelyOn) {
    EXPECT_EQ(word(kPad), "<pad>");
    EXPECT_EQ(word(kBos), "<bos>");
    EXPECT_EQ(word(kEos), "<eos>");
    EXPECT_EQ(word(3), "<think>");
    EXPECT_EQ(word(21), " give up");
    EXPECT_EQ(word(number(0)), "0");
    EXPECT_EQ(word(kVocabulary - 1), "99");
    EXPECT_EQ(id_of("12"), number(12));
    EXPECT_EQ(id_of("100"), -1);
    EXPECT_THROW(static_cast<void>(word(kVocabulary)), InternalError);
    EXPECT_THROW(static_cast<void>(word(-1)), InternalError);
}

TEST(CountdownVocabulary, RoundTripsEveryPromptAndTraceThroughTheTokenizer) {
    const auto tokenizer = text::Tokenizer::from_json(tokenizer_json(), "tokenizer.json");
    EXPECT_EQ(tokenizer.vocab_size(), kVocabulary);
    for (TokenId id = 0; id < kVocabulary; ++id) {
        EXPECT_EQ(tokenizer.token(id), word(id));
        EXPECT_EQ(tokenizer.encode(word(id)), std::vector<TokenId>{id});
        EXPECT_EQ(tokenizer.is_special(id), id <= kEos);
    }
    const Teacher teacher(7, 2000, {.hi = 20, .slip = 0.3});
    for (std::int64_t i = 0; i < 2000; ++i) {
        const Demonstration example = teacher.demonstration(i);
        EXPECT_EQ(tokenizer.encode(text_of(example.prompt)), example.prompt);
        EXPECT_EQ(tokenizer.encode(text_of(example.response)), example.response);
        EXPECT_EQ(tokenizer.decode(example.response), text_of(example.response));
    }
    const Problem problem = Training(7).problem(3);
    const std::vector<TokenId> prompt = tokenizer.encode(problem.prompt, true);
    EXPECT_EQ(std::ssize(prompt), kPromptTokens);
    EXPECT_EQ(text_of(prompt), "<bos>" + problem.prompt);
    EXPECT_THROW_WITH(static_cast<void>(tokenizer.encode("3 apples")), BadInput,
                      "\" apples\" is not in the vocabulary");
}

TEST(CountdownPuzzle, ListsEveryTryOnceWithTheLargerOperandFirst) {
    const std::vector<Try> tries = tries_of({2, 7, 5});
    for (const Try& each : tries) {
        for (const Step& step : {each.first, each.second}) {
            EXPECT_GE(step.left, step.right);
            EXPECT_GE(step.value, 0);
            EXPECT_LE(step.value, kLargest);
        }
        EXPECT_EQ(std::count(tries.begin(), tries.end(), each), 1);
    }
    // 7-5=2 (third 2): 2+2, 2-2, 2*2, 2/2.
    EXPECT_EQ(std::count_if(tries.begin(), tries.end(),
                            [](const Try& t) {
                                return t.first == Step{7, '-', 5, 2};
                            }),
              4);
    EXPECT_EQ(steps_from(9, 12), (std::vector<Step>{{12, '+', 9, 21}, {12, '-', 9, 3}}));
    EXPECT_EQ(steps_from(0, 5),
              (std::vector<Step>{{5, '+', 0, 5}, {5, '-', 0, 5}, {5, '*', 0, 0}}));
}

// Values of the recipe's Python.
TEST(CountdownPuzzle, HashesAProblemAsEveryOtherLanguageDoes) {
    EXPECT_EQ(bucket({{2, 7, 5}, 10}), 7);
    EXPECT_EQ(bucket({{5, 7, 11}, 46}), 5);
    EXPECT_EQ(bucket({{11, 5, 7}, 46}), 5);
    EXPECT_EQ(bucket({{99, 98, 97}, 99}), 13);
}

TEST(CountdownPuzzle, HasAsManyProblemsAsTheRecipeSays) {
    std::set<std::array<int, 4>> all;
    std::set<std::array<int, 4>> held_out;
    for (int a = 1; a <= 12; ++a) {
        for (int b = a; b <= 12; ++b) {
            for (int c = b; c <= 12; ++c) {
                for (const Try& each : tries_of({a, b, c})) {
                    const Puzzle puzzle{{a, b, c}, each.second.value};
                    if (puzzle.target == 0) continue;
                    all.insert({a, b, c, puzzle.target});
                    if (is_held_out(puzzle)) held_out.insert({a, b, c, puzzle.target});
                }
            }
        }
    }
    EXPECT_EQ(all.size(), 4717U);
    EXPECT_EQ(held_out.size(), 454U);
}

TEST(CountdownData, NeverPutsAHeldOutProblemIntoATrainingPromptOrTrace) {
    const Training training(1);
    for (std::int64_t i = 0; i < 5000; ++i) {
        const Problem problem = training.problem(i);
        const Puzzle puzzle{{static_cast<int>(problem.nums[0]), static_cast<int>(problem.nums[1]),
                             static_cast<int>(problem.nums[2])},
                            static_cast<int>(*problem.target)};
        ASSERT_FALSE(is_held_out(puzzle));
        ASSERT_EQ(problem_of(puzzle, problem.id), problem);
    }
    const Teacher teacher(1, 20000);
    for (std::int64_t i = 0; i < 20000; ++i) {
        const std::vector<TokenId> prompt = teacher.demonstration(i).prompt;
        const auto value = [&](std::size_t at) {
            return static_cast<int>(prompt[at] - kFirstNumber);
        };
        ASSERT_FALSE(is_held_out({{value(1), value(3), value(5)}, value(7)}));
    }
    const HeldOut held_out;
    for (const Puzzle& puzzle : held_out.puzzles()) EXPECT_TRUE(is_held_out(puzzle));
}

TEST(CountdownData, DependsOnSeedAndIndexAlone) {
    const Training training(5);
    const Teacher teacher(5, 100);
    const Problem late = training.problem(77);
    const Demonstration example = teacher.demonstration(77);
    EXPECT_EQ(Training(5).problem(77), late);
    EXPECT_EQ(Teacher(5, 100).demonstration(77), example);
    EXPECT_EQ(Teacher(5, 78).demonstration(77), example);
    EXPECT_NE(Training(6).problem(77), late);
    EXPECT_NE(training.problem(78).prompt, late.prompt);
    EXPECT_NE(Teacher(6, 100).demonstration(77).response, example.response);
    EXPECT_EQ(teacher.size(), 100);
    EXPECT_EQ(training.size(), std::nullopt);
}

TEST(CountdownData, HoldsOut400DifferentProblemsWithIdsOfTheirOwn) {
    const HeldOut held_out;
    ASSERT_EQ(held_out.size(), 400);
    std::set<std::uint64_t> ids;
    std::set<std::vector<std::int64_t>> problems;
    for (std::int64_t i = 0; i < 400; ++i) {
        const Problem problem = held_out.problem(i);
        ids.insert(problem.id);
        std::vector<std::int64_t> key = problem.nums;
        std::sort(key.begin(), key.end());
        key.push_back(*problem.target);
        problems.insert(key);
        EXPECT_NE(problem.id, Training(1).problem(i).id);
    }
    EXPECT_EQ(ids.size(), 400U);
    EXPECT_EQ(problems.size(), 400U);
    EXPECT_EQ(HeldOut(10).problem(9), held_out.problem(9));  // a smaller set is its beginning
}

// A rewritten generator is another data set: what runs compare and repeat.
TEST(CountdownData, StaysTheSameInEveryVersion) {
    EXPECT_EQ(Training(1).problem(0).prompt, "1,8,1->6");
    EXPECT_EQ(HeldOut().problem(0).prompt, "6,7,2->3");
    EXPECT_EQ(text_of(Teacher(1, 1).demonstration(0).response),
              "<think>11+9=20,20*1=20 vs 20 yes</think><answer>(11+9)*1</answer><eos>");
}

TEST(CountdownTeacher, WritesTracesInTheRecipesForm) {
    double tokens = 0.0;
    int right = 0;
    std::int64_t wrong_sums = 0;
    std::int64_t sums = 0;
    const Teacher teacher(3, 20000);
    for (std::int64_t i = 0; i < 20000; ++i) {
        const std::vector<TokenId> response = teacher.demonstration(i).response;
        tokens += static_cast<double>(response.size());
        ASSERT_EQ(response.front(), id_of("<think>"));
        ASSERT_EQ(response.back(), kEos);
        for (const auto tag : ids_of({"<think>", "</think>", "<answer>", "</answer>", "<eos>"})) {
            ASSERT_EQ(std::count(response.begin(), response.end(), tag), 1);
        }
        ASSERT_LE(std::ssize(response), TeacherOptions{}.max_tokens);
        const auto hit = std::count(response.begin(), response.end(), id_of(" yes"));
        const auto lost = std::count(response.begin(), response.end(), id_of(" give up"));
        ASSERT_EQ(hit + lost, 1);
        right += hit > 0 ? 1 : 0;
        for (std::size_t at = 0; at + 1 < response.size(); ++at) {
            if (word(response[at]) != "=") continue;
            const int left = response[at - 3] - kFirstNumber;
            const int second = response[at - 1] - kFirstNumber;
            const int value = response[at + 1] - kFirstNumber;
            const char op = word(response[at - 2])[0];
            const bool good = op == '+'   ? left + second == value
                              : op == '-' ? left - second == value
                              : op == '*' ? left * second == value
                                          : second != 0 && left == second * value;
            ++sums;
            wrong_sums += good ? 0 : 1;
        }
    }
    // 49 % of 80,000 traces are right and they have 56 tokens; one in a hundred sums is wrong.
    // Bounds: five standard errors.
    EXPECT_NEAR(tokens / 20000, 56.0, 1.5);
    EXPECT_NEAR(right / 20000.0, 0.49, 0.02);
    EXPECT_NEAR(static_cast<double>(wrong_sums) / static_cast<double>(sums), 0.01, 0.002);
}

TEST(CountdownTeacher, TriesNeverRepeatAndGiveUpsHappenAsOftenAsAsked) {
    TeacherOptions options;
    options.give_up = 1.0;
    RandomSequence random(RandomStream(1, Purpose::data_generation));
    const Puzzle puzzle{{3, 4, 5}, 99};
    const std::vector<TokenId> one = teacher_trace(random, puzzle, options);
    EXPECT_EQ(std::count(one.begin(), one.end(), id_of(" vs ")), 1);
    options = {.give_up = 0.0, .slip = 0.0, .max_tries = 1000, .max_tokens = 100000};
    const std::vector<TokenId> all = teacher_trace(random, puzzle, options);
    EXPECT_EQ(std::count(all.begin(), all.end(), id_of(" vs ")), std::ssize(tries_of(puzzle.nums)));
    EXPECT_EQ(std::count(all.begin(), all.end(), id_of(" give up")), 1);
    options.max_tries = 3;
    const std::vector<TokenId> three = teacher_trace(random, puzzle, options);
    EXPECT_EQ(std::count(three.begin(), three.end(), id_of(" vs ")), 3);
}

TEST(CountdownTeacher, PrefersTriesNearTheTargetByTheBias) {
    const Puzzle puzzle{{8, 9, 10}, 1};
    const auto first_miss = [&](double bias) {
        RandomSequence random(RandomStream(1, Purpose::data_generation));
        double sum = 0.0;
        for (int i = 0; i < 2000; ++i) {
            const auto trace =
                teacher_trace(random, puzzle, {.bias = bias, .give_up = 1.0, .slip = 0.0});
            sum += std::abs(trace[11] - kFirstNumber - puzzle.target);
        }
        return sum / 2000;
    };
    EXPECT_LT(first_miss(1.0), 0.8 * first_miss(0.0));
}

TEST(CountdownData, RefusesWhatCannotBeDrawn) {
    EXPECT_THROW_WITH(Training(1, 0), BadInput, "expected hi from 1 to 99, found 0");
    EXPECT_THROW_WITH(Training(1, 100), BadInput, "found 100");
    EXPECT_THROW_WITH(HeldOut(0), BadInput, "expected at least 1");
    EXPECT_THROW_WITH(HeldOut(455), BadInput, "have only 454");
    EXPECT_THROW_WITH(HeldOut(1, 1), BadInput, "numbers from 1 to 1 has no held-out problem");
    EXPECT_THROW_WITH(Teacher(1, 0), BadInput, "expected at least 1");
    EXPECT_THROW_WITH(Teacher(1, 1, {.hi = 0}), BadInput, "hi: expected 1 to 99");
    EXPECT_THROW_WITH(Teacher(1, 1, {.bias = -1.0}), BadInput, "bias");
    EXPECT_THROW_WITH(Teacher(1, 1, {.give_up = 1.5}), BadInput, "give_up: expected a probability");
    EXPECT_THROW_WITH(Teacher(1, 1, {.slip = std::nan("")}), BadInput,
                      "slip: expected a probability");
    EXPECT_THROW_WITH(Teacher(1, 1, {.max_tries = 0}), BadInput, "max_tries");
    EXPECT_THROW_WITH(Teacher(1, 1, {.max_tokens = 10}), BadInput, "max_tokens");
    EXPECT_THROW(static_cast<void>(Teacher(1, 5).demonstration(5)), InternalError);
    EXPECT_THROW(static_cast<void>(HeldOut(5).problem(-1)), InternalError);
}

TEST(CountdownTeacher, RawFormsLackTagsOrComparisons) {
    const auto ids = [](const std::string& text) {
        return text::Tokenizer::from_json(tokenizer_json(), "countdown", tokenizer_config_json())
            .encode(text);
    };
    const std::vector<TokenId> trace =
        ids("<think>7-5=2,2-2=0 vs 10 low, wait 5-2=3,7+3=10 vs 10 "
            "yes</think><answer>7+(5-2)</answer><eos>");
    EXPECT_EQ(text_of(raw_form(trace, true, true)), text_of(trace));
    EXPECT_EQ(text_of(raw_form(trace, false, true)),
              "7-5=2,2-2=0 vs 10 low, wait 5-2=3,7+3=10 vs 10 yes7+(5-2)<eos>");
    EXPECT_EQ(text_of(raw_form(trace, true, false)),
              "<think>7-5=2,2-2=0 wait 5-2=3,7+3=10 yes</think><answer>7+(5-2)</answer><eos>");
    for (const bool tagged : {false, true}) {
        const std::vector<TokenId> raw = raw_form(trace, tagged, false);
        EXPECT_EQ(ids(text_of(raw)), raw);
    }
}

TEST(CountdownTeacher, MixesFormsByTheirShares) {
    const Teacher teacher(1, 400, {.tagged = 0.3, .checked = 0.5});
    std::int64_t tagged = 0;
    std::int64_t checked = 0;
    for (std::int64_t i = 0; i < 400; ++i) {
        const std::vector<TokenId> response = teacher.demonstration(i).response;
        tagged += std::count(response.begin(), response.end(), id_of("<think>"));
        checked += std::count(response.begin(), response.end(), id_of(" vs ")) > 0 ? 1 : 0;
    }
    EXPECT_NEAR(static_cast<double>(tagged), 120.0, 40.0);
    EXPECT_NEAR(static_cast<double>(checked), 200.0, 45.0);
    EXPECT_THROW_WITH(Teacher(1, 10, {.tagged = 1.5}), BadInput, "tagged");
}

}  // namespace
}  // namespace rankwise::tasks::countdown
