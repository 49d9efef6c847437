// What answers do beyond being right, counted by hand; and how hard problems are.
#include "src/tasks/behaviour.hpp"

#include <gtest/gtest.h>

#include <cctype>
#include <map>

#include "src/base/error.hpp"
#include "src/tasks/countdown.hpp"
#include "src/tasks/difficulty.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::tasks {
namespace {

double count_in(const Counts& counts, std::string_view name) {
    for (const auto& [key, value] : counts) {
        if (key == name) return value;
    }
    ADD_FAILURE() << "no count " << name;
    return -1.0;
}

/// A count of a Countdown answer that ended by itself.
double count_of_search(std::string_view text, std::string_view name) {
    const Problem problem = countdown::problem_of({{7, 3, 12}, 48}, 0);
    return count_in(behaviour(problem, {.text = text}), name);
}

TEST(Behaviour, SummarisesSharesByTheirOwnCounts) {
    const auto counts = [](double tries, double sums, double wrong, double repeats) {
        return Counts{{"cut_off", 0.0},
                      {"tries", tries},
                      {"sums", sums},
                      {"wrong_sums", wrong},
                      {"repeats", repeats}};
    };
    EXPECT_EQ(summarise({counts(1, 2, 1, 0), counts(3, 6, 1, 2)}), (Counts{{"cut_off", 0.0},
                                                                           {"tries", 2.0},
                                                                           {"sums", 4.0},
                                                                           {"sum_error_rate", 0.25},
                                                                           {"repeat_rate", 0.5}}));
    EXPECT_EQ(summarise({counts(0, 0, 0, 0)})[3].second, 0.0);
    EXPECT_TRUE(summarise({}).empty());
}

TEST(Behaviour, OfSeveralTasksOnlyWhatAllHaveIsSummarised) {
    const Counts some{{"cut_off", 1.0}, {"reflections", 2.0}};
    const Counts more{{"cut_off", 0.0}, {"reflections", 1.0}, {"tries", 3.0}};
    const Counts mean{{"cut_off", 0.5}, {"reflections", 1.5}};
    EXPECT_EQ(summarise({some, more}), mean);
    EXPECT_EQ(summarise({more, some}), mean);
    EXPECT_TRUE(summarise({Counts{{"a", 1.0}}, Counts{{"b", 1.0}}}).empty());
}

TEST(Behaviour, OfAnyTaskIsReadInTheText) {
    EXPECT_EQ(behaviour({.task = "gsm8k"}, {.text = "7 apples\nWait, 7 apples\n7 apples",
                                            .finish = FinishReason::context}),
              (Counts{{"cut_off", 1.0}, {"reflections", 1.0}, {"repeated_lines", 1.0}}));
}

TEST(Behaviour, EveryMarkerCountsOnceInEitherCaseAndOnlyAsAWordOfItsOwn) {
    for (const Marker& marker : reflection_markers()) {
        std::string text(marker.text);
        EXPECT_EQ(count_markers(text, ""), 1) << text;
        EXPECT_EQ(count_markers("so, " + text + ".", ""), 1) << text;
        EXPECT_EQ(count_markers(text + "\n" + text, ""), 2) << text;
        EXPECT_EQ(count_markers(text + "x", ""), 0) << text;
        EXPECT_EQ(count_markers("7" + text, ""), text == "double-check" ? 1 : 0) << text;
        for (char& c : text) c = static_cast<char>(std::toupper(c));
        EXPECT_EQ(count_markers(text, ""), 1) << text;
    }
    EXPECT_EQ(count_markers("Wait, let me check again", ""), 4);
    EXPECT_EQ(count_markers("I double-check it", ""), 1);  // not also the "check" inside
    EXPECT_EQ(count_markers("a waiter checks; against_wait", ""), 0);
    EXPECT_EQ(count_markers("", ""), 0);
    EXPECT_EQ(count_of_search("<think>7+3=10,10+12=22 vs 48 low, wait 7-3=4,4*12=48 vs 48 yes"
                              "</think><answer>(7-3)*12</answer>",
                              "reflections"),
              1.0);
}

TEST(Behaviour, ATaskMayHaveMarkersOfItsOwn) {
    const std::vector<Marker> markers{{"wait"}, {"give up", "countdown"}};
    EXPECT_EQ(count_markers("wait, I give up", "countdown", markers), 2);
    EXPECT_EQ(count_markers("wait, I give up", "gsm8k", markers), 1);
}

TEST(Behaviour, ALineIsRepeatedIfItStoodThereBefore) {
    EXPECT_EQ(count_repeated_lines(""), 0);
    EXPECT_EQ(count_repeated_lines("a\nb\na"), 1);
    EXPECT_EQ(count_repeated_lines("a\n a \r\n\ta\n\n\n"), 2);  // white space around does not count
    EXPECT_EQ(count_repeated_lines("a b\na  b"), 0);
}

TEST(Behaviour, ARestartIsANewTryAfterAWrongSumOrAnUnfinishedTry) {
    const auto restarts = [](std::string_view text) { return count_of_search(text, "restarts"); };
    EXPECT_EQ(restarts("<think>7+3=10,10+12=22 vs 48 low, wait 7-3=4,4*12=48 vs 48 yes</think>"),
              0.0);
    // A wrong sum, first or second of its try, and whatever becomes of the next one.
    EXPECT_EQ(restarts("<think>7+3=11,11+12=23 vs 48 low, wait 7-3=4,4*12=48 vs 48 yes</think>"),
              1.0);
    EXPECT_EQ(restarts("<think>7+3=10,10+12=23 vs 48 low, wait 7-3=4</think>"), 1.0);
    EXPECT_EQ(restarts("<think>7+3=11,11+12=24,7-3=4,4*12=48</think>"), 1.0);
    // Going on with the same try is none, nor is an error after which nothing is tried.
    EXPECT_EQ(restarts("<think>7+3=11,11+12=23 vs 48 low, give up</think>"), 0.0);
    // A try left at its first sum; once, however long the wait.
    EXPECT_EQ(restarts("<think>7+3=10, wait 7-3=4,4*12=48 vs 48 yes</think>"), 1.0);
    EXPECT_EQ(restarts("<think>7+3=10, wait  wait 7-3=4,4*12=48 vs 48 yes</think>"), 1.0);
    EXPECT_EQ(restarts("<think>7+3=10, wait 7-3=4, wait 7*3=21,21+12=33</think>"), 2.0);
    EXPECT_EQ(restarts("<think>7+3=10, wait </think>"), 0.0);
    EXPECT_EQ(restarts("<think>7+3=11, wait 7-3=4,4*12=48, wait 7*3=21,21+12=33</think>"), 1.0);
}

TEST(Behaviour, ACheckIsATryWhoseResultIsCompared) {
    EXPECT_EQ(
        count_of_search("<think>7+3=10,10+12=22 vs 48 low, wait 7-3=4,4*12=48</think>", "checks"),
        1.0);
    EXPECT_EQ(count_of_search("<think>7+3=10 vs 48 low, wait 7-3=4</think>", "checks"), 0.0);
}

TEST(Difficulty, IsTheShareOfTriesThatHit) {
    const auto bin = [](std::array<int, 3> nums, int target) -> std::string_view {
        const Problem problem = countdown::problem_of({nums, target}, 0);
        const auto difficulty = difficulty_of(problem);
        std::int64_t hits = 0;
        const auto tries = countdown::tries_of(nums);
        for (const auto& each : tries) hits += each.second.value == target ? 1 : 0;
        const double share = static_cast<double>(hits) / static_cast<double>(tries.size());
        const std::string_view expected = share >= 0.1          ? "easy"
                                          : share >= 0.05       ? "medium"
                                          : share >= 1.0 / 30.0 ? "hard"
                                                                : "hardest";
        EXPECT_EQ(kDifficulties[difficulty.value()], expected);
        return kDifficulties[difficulty.value()];
    };
    // 1,1,1: 15 tries; 3 by 1+1+1, 2 by (1*1)+1 and the like.
    EXPECT_EQ(bin({1, 1, 1}, 2), "easy");
    EXPECT_EQ(bin({7, 3, 12}, 22), "easy");  // any order of two sums
    EXPECT_EQ(bin({12, 11, 10}, 13), "easy");
    std::map<std::string_view, int> found;
    const countdown::HeldOut held_out;
    for (const countdown::Puzzle& puzzle : held_out.puzzles())
        ++found[bin(puzzle.nums, puzzle.target)];
    EXPECT_EQ(found.size(), kDifficulties.size());
    for (const auto& [name, problems] : found) EXPECT_GT(problems, 40) << name;
}

TEST(Difficulty, IsUnknownForOtherTasksAndOtherPuzzles) {
    Problem problem = countdown::problem_of({{7, 3, 12}, 48}, 0);
    EXPECT_TRUE(difficulty_of(problem));
    problem.nums.push_back(5);
    EXPECT_FALSE(difficulty_of(problem));
    problem.nums = {7, 3, 100};
    EXPECT_FALSE(difficulty_of(problem));
    problem.nums = {-1, 3, 12};
    EXPECT_FALSE(difficulty_of(problem));
    problem = countdown::problem_of({{7, 3, 12}, 48}, 0);
    problem.target.reset();
    EXPECT_FALSE(difficulty_of(problem));
    EXPECT_FALSE(difficulty_of({.task = "gsm8k", .nums = {7, 3, 12}, .target = 48}));
}

}  // namespace
}  // namespace rankwise::tasks
