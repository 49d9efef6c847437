// When answers end, what is drawn, what callbacks see, and what is refused.
#include <array>
#include <limits>
#include <set>

#include "src/tasks/countdown.hpp"
#include "tests/support/throws.hpp"
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

using test::SmallModel;
namespace countdown = tasks::countdown;

class GeneratorTest : public testing::Test {
  protected:
    SmallModel model{test::small_config()};
    std::vector<Request> requests = test::requests_of({4, 66, 9}, 6);
};

// ---- the end of an answer

TEST_F(GeneratorTest, AnswersThatNothingEndsStopAtTheLimit) {
    for (const Trajectory& answer :
         test::generate(model, requests, {.max_new_tokens = 13, .seed = 2})) {
        EXPECT_EQ(answer.answer_size(), 13);
        EXPECT_EQ(answer.finish_reason, FinishReason::length);
    }
}

TEST_F(GeneratorTest, AStopIdEndsAnAnswerAndBelongsToIt) {
    const SamplingOptions free{.max_new_tokens = 60, .seed = 2};
    SamplingOptions stopping = free;
    stopping.stop_ids = {3, 17};
    const auto whole = test::generate(model, requests, free);
    const auto stopped = test::generate(model, requests, stopping);
    std::int64_t stops = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
        const auto answer = whole[i].answer();
        const auto end = std::find_if(answer.begin(), answer.end(),
                                      [](TokenId id) { return id == 3 || id == 17; });
        const bool ends = end != answer.end();
        const auto size = ends ? end - answer.begin() + 1 : std::ssize(answer);
        EXPECT_TRUE(
            std::ranges::equal(stopped[i].answer(), answer.first(static_cast<std::size_t>(size))));
        EXPECT_EQ(stopped[i].finish_reason, ends ? FinishReason::stop : FinishReason::length);
        stops += ends ? 1 : 0;
    }
    EXPECT_GT(stops, 5);
}

TEST_F(GeneratorTest, AFullContextEndsAnAnswer) {
    model::ModelConfig config = test::small_config();
    config.max_position = 68;
    SmallModel small(config);
    const auto answers = test::generate(small, requests, {.max_new_tokens = 59, .seed = 2});
    for (const Trajectory& answer : answers) {
        // 9 + 59 are 68: where both limits are met, the answer was as long as asked.
        EXPECT_EQ(answer.finish_reason,
                  answer.group == 1 ? FinishReason::context : FinishReason::length);
        EXPECT_EQ(answer.answer_size(), answer.group == 1 ? 2 : 59);
    }
    test::expect_exact_logprobs(small, answers, 1.0F);
}

/// A model over Countdown's vocabulary, whose tokenizer gives text.
class StopStrings : public testing::Test {
  protected:
    static model::ModelConfig config() {
        model::ModelConfig config = test::small_config();
        config.vocab_size = countdown::kVocabulary;
        return config;
    }
    std::vector<Trajectory> answers(const std::vector<std::string>& stops) {
        return test::generate(model, requests,
                              {.max_new_tokens = 40, .stop_strings = stops, .seed = 4}, {},
                              &tokenizer);
    }
    text::Tokenizer tokenizer = text::Tokenizer::from_json(countdown::tokenizer_json(), "countdown",
                                                           countdown::tokenizer_config_json());
    SmallModel model{config()};
    std::vector<Request> requests = test::requests_of({8, 70}, 8, countdown::kVocabulary);
};

TEST_F(StopStrings, EndAnAnswerAsSoonAsItsTextHoldsOneAlsoAcrossTokens) {
    const auto whole = answers({});
    // A string that starts inside one token and ends inside another, in the middle of an answer.
    const auto some = whole[3].answer();
    std::string across;
    for (std::size_t t = 10; across.size() < 2 && t + 1 < some.size(); ++t) {
        const std::string left = tokenizer.decode(some.subspan(t, 1));
        const std::string right = tokenizer.decode(some.subspan(t + 1, 1));
        if (left.size() > 1 && right.size() > 1) across = {left.back(), right.front()};
    }
    ASSERT_EQ(across.size(), 2U);
    const std::vector<std::string> stops{across, "->", "no such text"};
    const auto stopped = answers(stops);
    std::int64_t early = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
        const auto answer = whole[i].answer();
        std::size_t size = 0;
        bool ends = false;
        while (!ends && size < answer.size()) {
            const std::string text = tokenizer.decode(answer.first(++size));
            ends = text.find(across) != std::string::npos || text.find("->") != std::string::npos;
        }
        EXPECT_TRUE(std::ranges::equal(stopped[i].answer(), answer.first(size))) << i;
        EXPECT_EQ(stopped[i].finish_reason, ends ? FinishReason::stop : FinishReason::length);
        EXPECT_EQ(stopped[i].text, tokenizer.decode(answer.first(size), true));
        early += ends ? 1 : 0;
    }
    EXPECT_EQ(stopped[3].finish_reason, FinishReason::stop);
    EXPECT_GE(early, 2);
}

TEST_F(StopStrings, PaddedRowsOfTheVocabularyAreNeverDrawn) {
    Generator generator(model.compute, model.weights, {}, nullptr, 7);
    LocalWork work(requests);
    for (const Trajectory& answer : generator.run(requests, {.max_new_tokens = 40}, work, 0, {})) {
        for (const TokenId id : answer.answer()) EXPECT_LT(id, 7);
    }
}

// ---- what is drawn

TEST_F(GeneratorTest, AtTemperatureZeroTheLikeliestTokenIsDrawnAndItsLogprobIsThatOfOne) {
    const auto greedy =
        test::generate(model, requests, {.temperature = 0.0, .max_new_tokens = 20, .seed = 2});
    auto likeliest = test::generate(
        model, requests, {.temperature = 1.0, .top_k = 1, .max_new_tokens = 20, .seed = 3});
    EXPECT_EQ(greedy, likeliest);
    test::expect_exact_logprobs(model, greedy, 1.0F);
    for (std::size_t i = 1; i < greedy.size(); ++i) {
        if (greedy[i].group == greedy[i - 1].group) {
            EXPECT_EQ(greedy[i].tokens, greedy[i - 1].tokens);
        }
    }
}

TEST_F(GeneratorTest, TheSeedTheStepAndThePromptsNameChooseWhatIsDrawn) {
    const SamplingOptions sampling{.max_new_tokens = 20, .seed = 2};
    const auto first = test::generate(model, requests, sampling);
    EXPECT_EQ(test::generate(model, requests, sampling), first);
    SamplingOptions other = sampling;
    other.seed = 3;
    EXPECT_NE(test::generate(model, requests, other)[0].tokens, first[0].tokens);
    auto renamed = requests;
    renamed[0].prompt_id = 999;
    renamed[1].step = 4;
    const auto changed = test::generate(model, renamed, sampling);
    EXPECT_NE(changed[0].tokens, first[0].tokens);
    EXPECT_NE(changed[6].tokens, first[6].tokens);
    EXPECT_EQ(changed[12], first[12]);
}

/// For every drawn token: its rank among all, the mass of likelier ones, and its share of the
/// likeliest, by a forward pass in double.
struct Place {
    std::int64_t rank = 0;
    double before = 0.0;
    double share = 0.0;
};
std::vector<Place> places_of(SmallModel& model, std::span<const Trajectory> answers,
                             double temperature) {
    const test::reference::Model reference = model.reference_model();
    std::vector<Place> places;
    for (const Trajectory& answer : answers) {
        const auto rows =
            reference.distributions(answer.tokens, temperature, model.config.vocab_size);
        for (auto t = static_cast<std::size_t>(answer.prompt_size()); t < answer.tokens.size();
             ++t) {
            const test::reference::Vector& row = rows[t - 1];
            const double own = row[static_cast<std::size_t>(answer.tokens[t])];
            Place place;
            double largest = own;
            for (const double other : row) {
                largest = std::max(largest, other);
                if (other <= own) continue;
                ++place.rank;
                place.before += std::exp(other);
            }
            place.share = std::exp(own - largest);
            places.push_back(place);
        }
    }
    return places;
}

TEST_F(GeneratorTest, FiltersKeepOnlyWhatTheySayAndLeaveLogprobsAsTheyWere) {
    const std::array<SamplingOptions, 4> cases{{{.temperature = 1.3, .top_k = 5},
                                                {.temperature = 1.3, .top_p = 0.7},
                                                {.temperature = 1.3, .min_p = 0.1},
                                                {.temperature = 1.3}}};
    constexpr double kRounding = 1e-5;
    std::array<Place, 4> worst;
    for (std::size_t c = 0; c < cases.size(); ++c) {
        SamplingOptions sampling = cases[c];
        sampling.max_new_tokens = 30;
        sampling.seed = 5;
        const auto some = std::vector(requests.begin(), requests.begin() + 1);
        const auto answers = test::generate(model, some, sampling);
        test::expect_exact_logprobs(model, answers, 1.3F);
        worst[c].share = 1.0;
        for (const Place& place : places_of(model, answers, 1.3)) {
            worst[c].rank = std::max(worst[c].rank, place.rank);
            worst[c].before = std::max(worst[c].before, place.before);
            worst[c].share = std::min(worst[c].share, place.share);
        }
    }
    EXPECT_LT(worst[0].rank, 5);
    EXPECT_LT(worst[1].before, 0.7 + kRounding);
    EXPECT_GE(worst[2].share, 0.1 - kRounding);
    EXPECT_GE(worst[3].rank, 5);  // without filters all of that happens
    EXPECT_GT(worst[3].before, 0.7);
    EXPECT_LT(worst[3].share, 0.1);
}

// ---- callbacks

TEST_F(GeneratorTest, EveryTokenIsStreamedInOrderAndEveryAnswerIsReportedOnce) {
    Generator generator(model.compute, model.weights, {.slots = 4}, nullptr,
                        model.config.vocab_size);
    LocalWork work(requests);
    std::map<std::pair<std::int64_t, std::int32_t>, std::vector<TokenId>> streamed;
    std::vector<Trajectory> reported;
    Generator::Callbacks callbacks;
    callbacks.token = [&](const WorkUnit& unit, TokenId token) {
        streamed[{unit.request, unit.sample}].push_back(token);
    };
    callbacks.finished = [&](const Trajectory& answer) {
        EXPECT_TRUE(
            std::ranges::equal(streamed.at({answer.group, answer.sample}), answer.answer()));
        reported.push_back(answer);
    };
    const auto answers = generator.run(
        requests, {.max_new_tokens = 30, .stop_ids = {3, 4, 5}, .seed = 2}, work, 0, callbacks);
    std::sort(reported.begin(), reported.end(), [](const Trajectory& a, const Trajectory& b) {
        return std::pair(a.group, a.sample) < std::pair(b.group, b.sample);
    });
    EXPECT_EQ(reported, answers);
    EXPECT_EQ(streamed.size(), answers.size());
}

TEST_F(GeneratorTest, WhenAskedToStopItDropsAnswersUnderWayAndCanBeUsedAgain) {
    const SamplingOptions sampling{.max_new_tokens = 30, .stop_ids = {3, 4}, .seed = 2};
    const auto all = test::generate(model, requests, sampling);
    Generator generator(model.compute, model.weights, {.slots = 4}, nullptr,
                        model.config.vocab_size);
    std::int64_t steps = 0;
    Generator::Callbacks callbacks;
    callbacks.stop = [&] { return ++steps > 25; };
    LocalWork work(requests);
    const auto some = generator.run(requests, sampling, work, 0, callbacks);
    EXPECT_GT(some.size(), 0U);
    EXPECT_LT(some.size(), all.size());
    EXPECT_EQ(generator.counts().decode_steps, 25);
    EXPECT_EQ(generator.pages_in_use(), 0);
    for (const Trajectory& answer : some) {
        EXPECT_NE(answer.finish_reason, FinishReason::unfinished);
        const auto at = static_cast<std::size_t>(answer.group * 6 + answer.sample);
        EXPECT_EQ(answer.tokens, all[at].tokens);
    }
    LocalWork again(requests);
    const auto whole = generator.run(requests, sampling, again, 5, {});
    EXPECT_EQ(whole, all);
}

// ---- what is refused

TEST_F(GeneratorTest, AnEmptyPromptIsRefusedByName) {
    auto bad = requests;
    bad[1].prompt.clear();
    EXPECT_THROW_WITH(test::generate(model, bad, {}), BadInput, "prompt 101 is empty");
}

TEST_F(GeneratorTest, APromptThatFillsTheContextIsRefusedAndOneShorterIsNot) {
    const auto fits = test::generate(model, test::requests_of({255}, 1), {});
    ASSERT_EQ(fits.size(), 1U);
    EXPECT_EQ(fits[0].answer_size(), 1);
    EXPECT_EQ(fits[0].finish_reason, FinishReason::context);
    for (const std::int64_t size : {256, 300}) {
        EXPECT_THROW_WITH(test::generate(model, test::requests_of({4, size}, 1), {}), BadInput,
                          "prompt 101 has " + std::to_string(size) + " tokens");
    }
}

TEST_F(GeneratorTest, AWeightThatIsNotANumberIsReportedWithTheFirstTokenItReaches) {
    const ParameterId norm = model.weights.table().id("model.norm.weight");
    auto values = model.values(norm);
    values[3] = std::numeric_limits<float>::quiet_NaN();
    model.set(norm, values);
    EXPECT_THROW_WITH(test::generate(model, requests, {}), BadNumbers,
                      "log-probability of token 4 of prompt 100, sample 0 is not finite");
}

TEST_F(GeneratorTest, ZeroSlotsOrPiecesOfNoRowsAreErrors) {
    EXPECT_THROW_WITH(test::generate(model, requests, {}, {.slots = 0}), InternalError, "0 slots");
    EXPECT_THROW_WITH(test::generate(model, requests, {}, {.prefill_tokens = 0}), InternalError,
                      "0 rows");
}

TEST_F(GeneratorTest, NoRequestsGiveNoAnswers) {
    EXPECT_TRUE(test::generate(model, {}, {}).empty());
}

}  // namespace
}  // namespace rankwise::rollout
