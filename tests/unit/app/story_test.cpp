#include "src/app/story.hpp"

#include <gtest/gtest.h>

#include "src/app/told_problem.hpp"

namespace rankwise::app {
namespace {

MetricRecord evaluation(const std::string& stage, std::int64_t step, double pass) {
    return {.stage = stage,
            .step = step,
            .evaluation = true,
            .numbers = {{"eval/pass@1", pass}, {"eval/completions/mean_length", 100.0 * pass}}};
}

SampleRecord answer(const std::string& stage, const std::string& prompt, const std::string& text,
                    bool right, bool held_out = true) {
    return {.stage = stage,
            .step = 1,
            .sample = {.prompt = prompt, .answer = text},
            .evaluation = held_out,
            .right = right};
}

TEST(RunStory, HasTheLastEvaluationOfEachStageInOrder) {
    std::vector<MetricRecord> metrics{evaluation("teacher", 5, 0.25),
                                      {.stage = "grpo", .step = 1, .numbers = {{"loss", 1.0}}},
                                      evaluation("grpo", 0, 0.3),
                                      evaluation("grpo", 9, 0.75),
                                      evaluation("final", 1, 0.8)};
    metrics.back().numbers.emplace_back("eval/pass@4", 0.95);
    metrics.back().numbers.emplace_back("eval/pass@1/easy", 0.99);
    metrics.back().numbers.emplace_back("eval/pass@1/ci95_low", 0.77);
    metrics.back().numbers.emplace_back("eval/pass@1/ci95_high", 0.825);
    metrics.back().numbers.emplace_back("eval/self_corrected", 0.5);
    const std::string story =
        "on problems that it was never trained on (±: 95 %):\n"
        "  after           right   one of 4   length   corrected itself\n"
        "  teacher        25.0 %          -     25.0                  -\n"
        "  grpo           75.0 %          -     75.0                  -\n"
        "  final     80.0 % ±3.0     95.0 %     80.0             50.0 %";
    EXPECT_EQ(run_story(metrics, {}, 64), story);
    // What does not fit is left out, the least telling first.
    EXPECT_EQ(run_story(metrics, {}, 45),
              "on problems that it was never trained on (±: 95 %):\n"
              "  after           right   one of 4   length\n"
              "  teacher        25.0 %          -     25.0\n"
              "  grpo           75.0 %          -     75.0\n"
              "  final     80.0 % ±3.0     95.0 %     80.0");
}

TEST(RunStory, WhereKDiffersTheTitleDoesNotSayIt) {
    std::vector<MetricRecord> metrics{evaluation("a", 1, 0.25), evaluation("b", 1, 0.3)};
    metrics[0].numbers.emplace_back("eval/cons@4", 0.5);
    metrics[1].numbers.emplace_back("eval/cons@8", 0.5);
    EXPECT_NE(run_story(metrics, {}, 80).find("vote of k"), std::string::npos);
}

TEST(RunStory, IsEmptyWithoutEvaluations) {
    const std::vector<MetricRecord> metrics{{.stage = "grpo", .step = 1}};
    const std::vector<SampleRecord> samples{answer("a", "p", "x", false),
                                            answer("b", "p", "x", true)};
    EXPECT_EQ(run_story(metrics, samples, 80), "");
}

TEST(RunStory, ToldProblemWasWrongAndIsRightAfterMoreThought) {
    const std::vector<SampleRecord> samples{answer("teacher", "1", "was right", true),
                                            answer("teacher", "2", "no", false),
                                            answer("teacher", "3", "a long wrong one", false),
                                            answer("grpo", "4", "no pair", true),
                                            answer("grpo", "2", "trained on", true, false),
                                            answer("grpo", "1", "is still right", true),
                                            answer("grpo", "2", "an early one", false),
                                            answer("grpo", "3", "right", true),
                                            answer("grpo", "2", "no, wait, yes", true)};
    const std::vector<const SampleRecord*> told = told_problem(samples);
    ASSERT_EQ(told.size(), 2U);
    EXPECT_EQ(told[0]->sample.answer, "no");
    EXPECT_EQ(told[1]->sample.answer, "no, wait, yes");
    const std::vector<MetricRecord> metrics{evaluation("teacher", 5, 0.25)};
    const std::string story = run_story(metrics, samples, 80);
    EXPECT_NE(story.find("one of them, 2\n  after teacher (wrong):\n    no\n  after grpo (right):\n"
                         "    no, wait, yes"),
              std::string::npos)
        << story;
}

TEST(RunStory, StagesOfAnotherModelAreToldAndDoNotChoose) {
    const std::vector<ChainStage> chain{{.name = "base", .model = "policy"},
                                        {.name = "final", .model = "policy"},
                                        {.name = "small", .model = "little"}};
    const std::vector<SampleRecord> samples{
        answer("base", "1", "x", true),   answer("base", "2", "x", false),
        answer("final", "1", "xx", true), answer("final", "2", "xx", true),
        answer("small", "1", "x", true),  answer("small", "2", "x", false)};
    const auto told = told_problem(samples, chain);
    ASSERT_EQ(told.size(), 3U);
    EXPECT_EQ(told[0]->sample.prompt, "2");
    EXPECT_EQ(told[2]->stage, "small");
}

TEST(RunStory, WhatIsKeptTellsMoreThanWhatIsLostAgain) {
    const std::vector<SampleRecord> samples{
        answer("a", "1", "x", false), answer("a", "2", "x", false), answer("a", "3", "x", false),
        answer("b", "1", "x", true),  answer("b", "2", "x", true),  answer("b", "3", "x", false),
        answer("c", "1", "x", false), answer("c", "2", "x", true),  answer("c", "3", "x", true),
        answer("d", "1", "x", true),  answer("d", "2", "x", true),  answer("d", "3", "x", true)};
    EXPECT_EQ(told_problem(samples).front()->sample.prompt, "3");
    EXPECT_EQ(told_problem(std::span(samples).first(11)).front()->sample.prompt, "2");
}

}  // namespace
}  // namespace rankwise::app
