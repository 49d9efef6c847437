#include "src/tasks/scorer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "src/base/error.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::tasks {
namespace {

void make(const std::vector<std::string>& names, const std::vector<double>& weights) {
    static_cast<void>(make_reward_set(names, weights));
}

/// Gives fixed results, the last submitted first.
class Fixed final : public Scorer {
  public:
    explicit Fixed(std::vector<ScoreResult> results) : results_(std::move(results)) {}
    Ticket submit(std::span<const ScoreRequest>) override { return Ticket{next_++}; }
    std::vector<ScoreResult> collect(Ticket) override { return results_; }

  private:
    std::vector<ScoreResult> results_;
    std::int64_t next_ = 0;
};

struct Batch {
    std::vector<Problem> problems;
    std::vector<ScoreRequest> requests;
};
// An answer in good form, and one that is not; the second problem lacks nums.
Batch batch() {
    Batch b;
    b.problems.resize(2);
    b.problems[0].id = 70;
    b.problems[0].nums = {2, 3};
    b.problems[0].target = 6;
    b.problems[1].id = 71;
    for (int i = 0; i < 2; ++i) {
        b.requests.push_back(
            {nullptr,
             {.text = i == 0 ? "<think></think><answer>2*3</answer>" : "?", .length = 9},
             i + 4});
    }
    return b;
}
std::vector<ScoreRequest> bound(Batch& b) {
    for (std::size_t i = 0; i < b.requests.size(); ++i) b.requests[i].problem = &b.problems[i];
    return b.requests;
}

TEST(RewardSet, WeighsRewardsAndSkipsThoseWithoutAValue) {
    Batch b = batch();
    const std::vector<std::string> names = {"countdown", "format"};
    RewardSet set = make_reward_set(names, std::vector<double>{1.0, 0.2});
    const auto judgements = set.judge(bound(b));
    ASSERT_EQ(judgements.size(), 2U);
    EXPECT_EQ(judgements[0].reward, 1.2);
    EXPECT_EQ(judgements[0].scores, (std::vector<Score>{{"countdown", 1.0, 0, 9, ScoreStatus::ok},
                                                        {"format", 1.0, 0, 9, ScoreStatus::ok}}));
    EXPECT_EQ(judgements[1].reward, 0.0);
    EXPECT_EQ(judgements[1].scores[0], (Score{"countdown", 0.0, 0, 9, ScoreStatus::none}));
    EXPECT_EQ(set.names(), names);
    EXPECT_EQ(set.weights(), (std::vector<double>{1.0, 0.2}));
}

TEST(RewardSet, LeavesFailedScoresOutOfTheSum) {
    Batch b = batch();
    RewardSet set = make_reward_set(std::vector<std::string>{"format"}, {});
    set.add("judge", 10.0,
            std::make_unique<Fixed>(
                std::vector<ScoreResult>{{5.0, ScoreStatus::ok}, {7.0, ScoreStatus::failed}}));
    const auto judgements = set.judge(bound(b));
    EXPECT_EQ(judgements[0].reward, 51.0);
    EXPECT_EQ(judgements[1].reward, 0.0);
    EXPECT_EQ(judgements[1].scores[1].status, ScoreStatus::failed);
}

TEST(RewardSet, CollectsTicketsInAnyOrderAndEachOnce) {
    Batch b = batch();
    const auto requests = bound(b);
    RewardSet set = make_reward_set(std::vector<std::string>{"format"}, {});
    const Ticket first = set.submit(std::span(requests).first(1));
    const Ticket second = set.submit(std::span(requests).subspan(1));
    EXPECT_EQ(set.collect(second)[0].reward, 0.0);
    EXPECT_EQ(set.collect(first)[0].reward, 1.0);
    EXPECT_THROW_WITH(static_cast<void>(set.collect(first)), InternalError, "not open");
    RuleScorer rule(make_reward({.name = "format"}));
    EXPECT_THROW_WITH(static_cast<void>(rule.collect(Ticket{0})), InternalError, "not open");
    EXPECT_TRUE(set.judge({}).empty());
}

TEST(RewardSet, StopsAtARewardThatIsNotFinite) {
    Batch b = batch();
    RewardSet set = make_reward_set(std::vector<std::string>{"format"}, {});
    const double infinity = std::numeric_limits<double>::infinity();
    set.add("broken", 1.0,
            std::make_unique<Fixed>(
                std::vector<ScoreResult>{{0.0, ScoreStatus::ok}, {infinity, ScoreStatus::ok}}));
    EXPECT_THROW_WITH(static_cast<void>(set.judge(bound(b))), BadNumbers,
                      "the reward \"broken\" of prompt 71, sample 5 is inf");
}

TEST(RewardSet, RefusesListsThatDoNotFit) {
    const std::vector<std::string> twice = {"format", "format"};
    EXPECT_THROW_WITH(make(twice, {}), BadInput, "\"format\" is named twice");
    EXPECT_THROW_WITH(make(twice, {1.0}), BadInput, "2 rewards are named, but 1 weights");
    EXPECT_THROW_WITH(make({}, {}), BadInput, "no reward is named");
    EXPECT_THROW_WITH(make({"format"}, {NAN}), BadInput, "weight");
    EXPECT_THROW_WITH(make({"from"}, {}), BadInput, "no reward is called \"from\"");
    Batch b = batch();
    RewardSet set = make_reward_set(std::vector<std::string>{"format"}, {});
    set.add("short", 1.0, std::make_unique<Fixed>(std::vector<ScoreResult>{}));
    EXPECT_THROW_WITH(static_cast<void>(set.judge(bound(b))), InternalError,
                      "gives 0 results for 2 answers");
}

}  // namespace
}  // namespace rankwise::tasks
