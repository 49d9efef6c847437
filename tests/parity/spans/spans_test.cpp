// Contexts of more than two spans of keys through a whole model: what generation noted is what
// training and scoring compute, bit for bit, however the prompt was cut and the group was bundled.
#include "tests/support/gradients.hpp"
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::test {
namespace {

constexpr std::int64_t kPrompt =
    4990;  // spans end at 2048 and 4096; a page and a block begin at 4992
constexpr std::int64_t kAnswer = 20;
constexpr std::int32_t kSamples = 3;
constexpr float kTemperature = 0.9F;

model::ModelConfig config() {
    model::ModelConfig config = small_config(model::Family::qwen3);
    config.max_position = 5120;
    return config;
}

std::vector<Trajectory> generated(SmallModel& model, std::int64_t slots, std::int64_t prefill) {
    return generate(model, requests_of({kPrompt}, kSamples),
                    {.temperature = kTemperature, .max_new_tokens = kAnswer, .seed = 8},
                    {.slots = slots, .prefill_tokens = prefill});
}

/// One update's log-probabilities, checked against the sampler's; its gradients.
Gradients update_of(SmallModel& model, std::span<const Trajectory> answers,
                    std::int64_t chunk_tokens, std::int64_t recompute) {
    std::vector<update::SampleSize> sizes;
    for (const Trajectory& answer : answers) {
        sizes.push_back({answer.group, answer.prompt_size(), answer.answer_size()});
    }
    const update::PlanOptions options{.chunk_tokens = chunk_tokens, .chunk_multiple = 1};
    const update::MinibatchPlan plan = update::plan_minibatch(sizes, options);
    EXPECT_EQ(std::ssize(plan.bundles), chunk_tokens > kPrompt + 2 * kAnswer ? 1 : 2);
    update::Trainer trainer(model.compute, model.weights, *model.self,
                            {.head = {.ids = model.config.vocab_size, .temperature = kTemperature},
                             .recompute = recompute},
                            {});
    std::int64_t compared = 0;
    const update::MinibatchCallbacks callbacks{
        .text =
            [&](std::int64_t sample) {
                const Trajectory& answer = answers[static_cast<std::size_t>(sample)];
                return update::SampleText{std::span(answer.tokens).first(kPrompt), answer.answer()};
            },
        .loss =
            [&](std::int64_t sample, std::span<const float> logprob, std::span<const float>,
                std::span<float> coefficient) {
                const Trajectory& answer = answers[static_cast<std::size_t>(sample)];
                for (std::size_t t = 0; t < logprob.size(); ++t) {
                    compared += logprob[t] == answer.logprobs[kPrompt + t] ? 1 : 0;
                    coefficient[t] = static_cast<float>(sample - 1);
                }
            }};
    (void)trainer.step(plan, options, callbacks, 0.0);
    EXPECT_EQ(compared, kSamples * kAnswer);
    return gradients_of(model, trainer);
}

TEST(Spans, FiveThousandTokensGenerateScoreAndTrainAlikeOnEveryDevice) {
    std::vector<Trajectory> expected;
    Gradients bundled;
    Gradients cut;
    for (const DeviceCase& device : device_cases()) {
        SCOPED_TRACE(device.name);
        SmallModel model(config(), device);
        const bool first = expected.empty();
        const auto answers = generated(model, kSamples, first ? 2048 : 777);
        if (first) expected = answers;
        ASSERT_EQ(answers, expected);
        expect_exact_logprobs(model, answers, kTemperature);
        // One bundle; and a group cut into two, of which each computes the prompt.
        const Gradients one = update_of(model, answers, 6000, first);
        if (first) bundled = one;
        EXPECT_EQ(one, bundled);
        if (first || device.options.threads == 2) {
            const Gradients two = update_of(model, answers, kPrompt + 2 * kAnswer, !first);
            if (first) cut = two;
            EXPECT_EQ(two, cut);
        }
        if (device.options.checked) break;
    }
}

TEST(Spans, PiecesOfThePromptThatEndAroundASpansEndAndSlotsChangeNoBit) {
    SmallModel model(config());
    const auto expected = generated(model, kSamples, 8192);
    for (const std::int64_t piece : {2047, 2049, 333}) {
        EXPECT_EQ(generated(model, 1, piece), expected) << piece;
    }
}

/// The spans are really there: with a fault in the merge of one, this would differ from a forward
/// pass in double.
TEST(Spans, LogprobsBehindTwoSpansAreThoseOfAPassInDouble) {
    SmallModel model(config());
    auto answers = generated(model, 1, 4096);
    const reference::Model reference = model.reference_model();
    const auto rows = reference.distributions(std::span(answers[0].tokens).first(kPrompt + 4),
                                              kTemperature, model.config.vocab_size);
    for (std::size_t t = kPrompt; t < kPrompt + 4; ++t) {
        EXPECT_NEAR(answers[0].logprobs[t],
                    rows[t - 1][static_cast<std::size_t>(answers[0].tokens[t])], 1e-4);
    }
}

}  // namespace
}  // namespace rankwise::test
