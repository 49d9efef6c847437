#include "src/stages/selection.hpp"

#include <gtest/gtest.h>

namespace rankwise::stages {
namespace {

Candidate candidate(std::int64_t prompt, std::int32_t sample, double rate, std::uint64_t content) {
    return {.prompt = prompt, .sample = sample, .right_rate = rate, .content = {content, 0}};
}

TEST(Selection, DropsAnAnswerThatIsThereAlreadyAndKeepsTheFirstOfAPrompt) {
    const std::vector<Candidate> candidates{candidate(0, 0, 1.0, 7), candidate(0, 1, 1.0, 7),
                                            candidate(0, 2, 1.0, 8), candidate(0, 3, 1.0, 9),
                                            candidate(1, 0, 1.0, 7)};
    const Selection selection = select(candidates, {.max_per_prompt = 2});
    EXPECT_EQ(selection.kept, (std::vector<std::size_t>{0, 2, 4}));
    EXPECT_EQ(selection.duplicates, 1);
    EXPECT_EQ(selection.over_prompt, 1);
    EXPECT_EQ(selection.over_total, 0);
}

TEST(Selection, KeepsThePromptsBestIfAsked) {
    std::vector<Candidate> candidates{candidate(0, 0, 0.5, 1), candidate(0, 1, 0.5, 2),
                                      candidate(0, 2, 0.5, 3), candidate(0, 3, 0.5, 4),
                                      candidate(1, 0, 0.0, 5)};
    candidates[1].score = candidates[3].score = 1.0;
    const Selection best = select(candidates, {.max_per_prompt = 3, .best_first = true});
    EXPECT_EQ(best.kept, (std::vector<std::size_t>{0, 1, 3, 4}));
    EXPECT_EQ(best.over_prompt, 1);
    const Selection first = select(candidates, {.max_per_prompt = 3});
    EXPECT_EQ(first.kept, (std::vector<std::size_t>{0, 1, 2, 4}));
}

TEST(Selection, OfTooManyKeepsThoseOfTheHardestPromptsInTheirOrder) {
    const std::vector<Candidate> candidates{candidate(0, 0, 0.5, 1), candidate(1, 0, 0.25, 2),
                                            candidate(2, 0, 1.0, 3), candidate(3, 0, 0.25, 4),
                                            candidate(4, 0, 0.5, 5)};
    const Selection selection = select(candidates, {.max_kept = 3});
    EXPECT_EQ(selection.kept, (std::vector<std::size_t>{0, 1, 3}));
    EXPECT_EQ(selection.over_total, 2);
}

TEST(Selection, OfNothingIsNothing) {
    EXPECT_TRUE(select({}, {}).kept.empty());
}

}  // namespace
}  // namespace rankwise::stages
