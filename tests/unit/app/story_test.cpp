#include "src/app/story.hpp"

#include <gtest/gtest.h>

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
    EXPECT_EQ(run_story(metrics, {}, 80),
              "on problems that it was never trained on:\n"
              "  after      right   pass@4   length\n"
              "  teacher   25.0 %        -     25.0\n"
              "  grpo      75.0 %        -     75.0\n"
              "  final     80.0 %   95.0 %     80.0");
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

}  // namespace
}  // namespace rankwise::app
