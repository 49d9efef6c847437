// What a step allocates once memory has grown to its size.
#include <gtest/gtest.h>

#include <string>

#include "src/rollout/generator.hpp"
#include "src/update/trainer.hpp"
#include "tests/support/small_model.hpp"
#include "tests/unit/steady/count_allocations.hpp"

namespace rankwise::test {
namespace {

constexpr std::int64_t kPrompts = 3;
constexpr std::int64_t kSamples = 4;
constexpr std::int64_t kPromptTokens = 70;  // more than a page of the cache
constexpr int kWarmSteps = 3;

struct Counts {
    std::int64_t device = 0;  ///< allocations of device memory
    std::int64_t host = 0;    ///< of any other
};

/// Generates answers of one length, and learns from them as they are.
class Steps {
  public:
    Steps() {
        for (std::int64_t i = 0; i < kPrompts; ++i) {
            rollout::Request request{
                .prompt_id = static_cast<std::uint64_t>(i), .group = i, .samples = kSamples};
            for (std::int64_t t = 0; t < kPromptTokens; ++t)
                request.prompt.push_back(narrow<TokenId>((i + 3 * t) % model_.config.vocab_size));
            requests_.push_back(std::move(request));
        }
    }

    Counts generate(std::int64_t new_tokens) {
        const Counts before = now();
        rollout::LocalWork work(requests_);
        answers_ =
            generator_.run(requests_, {.max_new_tokens = new_tokens, .seed = 1}, work, 0, {});
        return since(before);
    }

    Counts update() {
        std::vector<update::SampleSize> sizes;
        for (const Trajectory& answer : answers_)
            sizes.push_back({answer.group, answer.prompt_size(), answer.answer_size()});
        const update::PlanOptions options{.chunk_tokens = 128, .chunk_multiple = 2};
        const update::MinibatchPlan plan = update::plan_minibatch(sizes, options);
        const update::MinibatchCallbacks callbacks{
            .text =
                [&](std::int64_t sample) {
                    const Trajectory& answer = answers_[static_cast<std::size_t>(sample)];
                    return update::SampleText{
                        requests_[static_cast<std::size_t>(answer.group)].prompt, answer.answer()};
                },
            .loss =
                [](std::int64_t, std::span<const float>, std::span<const float>,
                   std::span<float> coefficient) {
                    std::fill(coefficient.begin(), coefficient.end(), -0.01F);
                }};
        const Counts before = now();
        (void)trainer_.step(plan, options, callbacks, 1e-5);
        return since(before);
    }

  private:
    Counts now() const { return {model_.device->allocations(), allocations()}; }
    Counts since(const Counts& before) const {
        const Counts after = now();
        return {after.device - before.device, after.host - before.host};
    }

    SmallModel model_{small_config()};
    rollout::Generator generator_{
        model_.compute, model_.weights, {.slots = 8}, nullptr, model_.config.vocab_size};
    update::Trainer trainer_{model_.compute,
                             model_.weights,
                             *model_.self,
                             {.head = {.ids = model_.config.vocab_size}},
                             {}};
    std::vector<rollout::Request> requests_;
    std::vector<Trajectory> answers_;
};

TEST(SteadyStep, AllocatesNoDeviceMemory) {
    Steps steps;
    for (int i = 0; i < kWarmSteps; ++i) {
        (void)steps.generate(20);
        (void)steps.update();
    }
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(steps.generate(20).device, 0);
        EXPECT_EQ(steps.update().device, 0);
    }
}

TEST(SteadyStep, AsksTheHostForNoMoreThanTheStepBefore) {
    Steps steps;
    for (int i = 0; i < kWarmSteps; ++i) {
        (void)steps.generate(20);
        (void)steps.update();
    }
    const Counts generated = steps.generate(20);
    const Counts updated = steps.update();
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(steps.generate(20).host, generated.host);
        EXPECT_EQ(steps.update().host, updated.host);
    }
    RecordProperty("generate", std::to_string(generated.host));
    RecordProperty("update", std::to_string(updated.host));
}

}  // namespace
}  // namespace rankwise::test
