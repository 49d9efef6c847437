// An answer depends on its name alone: not on slots, pieces of prompts, ranks or the order of
// dealing; and a prompt is computed once for its group.
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

using test::SmallModel;

/// Lengths at and around the borders of pages, and a prompt of one token, of which nothing is
/// computed ahead.
const std::vector<std::int64_t> kLengths{1, 2, 63, 64, 65, 66, 130, 7};
constexpr std::int32_t kSamples = 5;

SamplingOptions sampling() {
    return {.temperature = 0.8, .max_new_tokens = 70, .stop_ids = {9}, .seed = 11};
}

/// Positions computed ahead: all of a prompt but its last token.
std::int64_t computed_ahead(const std::vector<Request>& requests) {
    std::int64_t rows = 0;
    for (const Request& request : requests) rows += std::ssize(request.prompt) - 1;
    return rows;
}

class Batching : public testing::Test {
  protected:
    SmallModel model{test::small_config()};
    std::vector<Request> requests = test::requests_of(kLengths, kSamples);
    std::vector<Trajectory> expected = test::generate(model, requests, sampling());
};

TEST_F(Batching, AnswersComeInCanonicalOrderWithTheirNamesAndSegments) {
    ASSERT_EQ(expected.size(), kLengths.size() * kSamples);
    std::set<FinishReason> reasons;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const Trajectory& answer = expected[i];
        const auto size = std::ssize(answer.tokens);
        const std::int64_t prompt = kLengths[i / kSamples];
        EXPECT_EQ(answer.group, static_cast<std::int64_t>(i / kSamples));
        EXPECT_EQ(answer.sample, static_cast<std::int32_t>(i % kSamples));
        EXPECT_EQ(answer.prompt_id, 100 + i / kSamples);
        EXPECT_EQ(answer.parent, -1);
        EXPECT_TRUE(std::equal(requests[i / kSamples].prompt.begin(),
                               requests[i / kSamples].prompt.end(), answer.tokens.begin()));
        EXPECT_EQ(answer.segments,
                  (std::vector<Segment>{{.speaker = Speaker::user, .begin = 0, .end = prompt},
                                        {.speaker = Speaker::assistant,
                                         .begin = prompt,
                                         .end = size,
                                         .trainable = true,
                                         .policy_version = 5}}));
        reasons.insert(answer.finish_reason);
    }
    EXPECT_EQ(reasons, (std::set<FinishReason>{FinishReason::stop, FinishReason::length}));
}

TEST_F(Batching, SamplesOfAPromptDiffer) {
    for (std::size_t i = 0; i < expected.size(); i += kSamples) {
        EXPECT_NE(expected[i].tokens, expected[i + 1].tokens);
    }
}

TEST_F(Batching, LogprobsAreThoseOfTheScoringPass) {
    test::expect_exact_logprobs(model, expected, 0.8F);
}

TEST_F(Batching, SlotsPiecesOfPromptsAndBlocksOfLogitsChangeNoBit) {
    for (const std::int64_t slots : {1, 3, 64}) {
        for (const std::int64_t prefill : {5, 2048}) {
            for (const std::int64_t logits_bytes : {1, 1 << 20}) {
                SCOPED_TRACE(testing::Message() << slots << " slots, " << prefill << " rows, "
                                                << logits_bytes << " bytes");
                EXPECT_EQ(
                    test::generate(
                        model, requests, sampling(),
                        {.slots = slots, .prefill_tokens = prefill, .logits_bytes = logits_bytes}),
                    expected);
            }
        }
    }
}

TEST(ManyAnswers, GoLaneByLaneWithTheBitsThatTheyHaveTogether) {
    const auto requests = test::requests_of(kLengths, 13);
    const auto answers = [&](int threads, bool checked, std::int64_t slots) {
        SmallModel model(test::small_config(), {"", {.threads = threads, .checked = checked}});
        return test::generate(model, requests, sampling(), {.slots = slots});
    };
    const std::vector<Trajectory> expected = answers(1, false, 5);  // no lane has enough of them
    test::expect_same(answers(2, false, 104), expected);
    test::expect_same(answers(3, false, 97), expected);
    test::expect_same(answers(4, false, 99), expected);
    test::expect_same(answers(2, true, 50), expected);
}

TEST_F(Batching, APromptIsComputedOnceForItsGroup) {
    for (const std::int64_t slots : {1, 3, 64}) {
        for (const std::int64_t prefill : {5, 2048}) {
            Generator generator(model.compute, model.weights,
                                {.slots = slots, .prefill_tokens = prefill}, nullptr,
                                model.config.vocab_size);
            LocalWork work(requests);
            std::int64_t drawn = 0;
            for (const Trajectory& answer : generator.run(requests, sampling(), work, 5, {})) {
                drawn += answer.answer_size();
            }
            EXPECT_EQ(generator.counts().prefill_rows, computed_ahead(requests));
            EXPECT_EQ(generator.counts().prompts_shared, std::ssize(requests) * (kSamples - 1));
            EXPECT_EQ(generator.counts().decode_rows, drawn);
            EXPECT_EQ(generator.pages_in_use(), 0);
        }
    }
}

TEST_F(Batching, AGeneratorThatIsUsedAgainLeaksNoPage) {
    Generator generator(model.compute, model.weights, {.slots = 3}, nullptr,
                        model.config.vocab_size);
    std::int64_t bytes = 0;
    for (int round = 0; round < 5; ++round) {
        LocalWork work(requests);
        EXPECT_EQ(generator.run(requests, sampling(), work, 5, {}), expected);
        EXPECT_EQ(generator.pages_in_use(), 0);
        EXPECT_TRUE(round == 0 || bytes == generator.cache_bytes());
        bytes = generator.cache_bytes();
    }
}

TEST_F(Batching, LongerRequestsGetALargerCache) {
    Generator generator(model.compute, model.weights, {.slots = 2}, nullptr,
                        model.config.vocab_size);
    const auto run = [&](const std::vector<Request>& some) {
        LocalWork work(some);
        return generator.run(some, sampling(), work, 5, {});
    };
    (void)run(test::requests_of({3}, 2));
    const std::int64_t bytes = generator.cache_bytes();
    EXPECT_EQ(run(requests), expected);
    EXPECT_GT(generator.cache_bytes(), bytes);
}

TEST_F(Batching, RanksAndIntervalsOfDealingChangeNoBitAndAPromptIsComputedAtMostOnceARank) {
    for (const int ranks : {1, 2, 3}) {
        for (const std::int64_t interval : {1, 4}) {
            for (const std::int64_t slots : {1, 4, 64}) {
                SCOPED_TRACE(testing::Message() << ranks << " ranks, interval " << interval << ", "
                                                << slots << " slots");
                std::mutex mutex;
                std::vector<Trajectory> all;
                parallel::ThreadWorld(ranks).run([&](parallel::Communicator& world) {
                    SmallModel own(test::small_config());
                    Generator generator(own.compute, own.weights, {.slots = slots}, nullptr,
                                        own.config.vocab_size);
                    DealtWork work(requests, world, interval);
                    const auto mine = generator.run(requests, sampling(), work, 5, {});
                    const std::lock_guard lock(mutex);
                    EXPECT_LE(generator.counts().prefill_rows, computed_ahead(requests));
                    EXPECT_EQ(generator.pages_in_use(), 0);
                    all.insert(all.end(), mine.begin(), mine.end());
                });
                std::sort(all.begin(), all.end(), [](const Trajectory& a, const Trajectory& b) {
                    return std::pair(a.group, a.sample) < std::pair(b.group, b.sample);
                });
                EXPECT_EQ(all, expected);
            }
        }
    }
}

TEST_F(Batching, ThreadsAndInstructionSetsChangeNoBit) {
    for (const test::DeviceCase& device : test::device_cases()) {
        SCOPED_TRACE(device.name);
        SmallModel own(test::small_config(), device);
        EXPECT_EQ(test::generate(own, requests, sampling(), {.slots = 7}), expected);
    }
}

TEST_F(Batching, InBf16AnswersAreThoseOfTheScoringPassOnEveryDeviceToo) {
    for (const model::Family family : {model::Family::qwen2, model::Family::qwen3}) {
        const model::ModelConfig config = test::in_bf16(test::small_config(family));
        SmallModel plain(config);
        const auto answers = test::generate(plain, requests, sampling());
        test::expect_exact_logprobs(plain, answers, 0.8F);
        for (const test::DeviceCase& device : test::device_cases()) {
            SCOPED_TRACE(device.name);
            SmallModel own(config, device);
            EXPECT_EQ(test::generate(own, requests, sampling(), {.slots = 7, .prefill_tokens = 11}),
                      answers);
        }
    }
}

TEST_F(Batching, InBf16TheCacheTakesHalfTheMemory) {
    const auto bytes_of = [&](const model::ModelConfig& config) {
        SmallModel own(config);
        Generator generator(own.compute, own.weights, {.slots = 2}, nullptr, config.vocab_size);
        LocalWork work(requests);
        (void)generator.run(requests, sampling(), work, 5, {});
        return generator.cache_bytes();
    };
    EXPECT_EQ(2 * bytes_of(test::in_bf16(test::small_config())), bytes_of(test::small_config()));
}

TEST_F(Batching, QueryNormsAndUntiedHeadsGenerateWhatTheyScore) {
    for (const model::Family family : {model::Family::llama, model::Family::qwen3,
                                       model::Family::deepseek_v2, model::Family::deepseek_v3}) {
        SmallModel other(test::small_config(family));
        const auto answers = test::generate(other, requests, sampling(), {.slots = 9});
        test::expect_exact_logprobs(other, answers, 0.8F);
    }
}

}  // namespace
}  // namespace rankwise::rollout
