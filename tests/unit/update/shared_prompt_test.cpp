// A group's prompt is computed once for all its samples, forward and backward, and gives what
// separate computation gives; a counter of rows proves that it happens.
#include "tests/support/gradients.hpp"

#include "src/base/philox.hpp"

namespace rankwise::update {
namespace {

using test::Gradients;
using test::SmallModel;

/// Float32 sums of other order: some 2^-24 of the largest part of a sum of some hundred.
constexpr double kRounding = 1e-5;

struct Group {
    std::vector<TokenId> prompt;
    std::vector<std::vector<TokenId>> answers;
};

std::vector<Group> groups_of(const std::vector<std::int64_t>& prompts,
                             const std::vector<std::int64_t>& answers) {
    RandomSequence random(RandomStream(3, Purpose::data_generation));
    const auto ids = [&](std::int64_t count) {
        std::vector<TokenId> all;
        while (std::ssize(all) < count) all.push_back(static_cast<TokenId>(random.below(37)));
        return all;
    };
    std::vector<Group> groups;
    for (const std::int64_t prompt : prompts) {
        Group& group = groups.emplace_back();
        group.prompt = ids(prompt);
        for (const std::int64_t answer : answers) group.answers.push_back(ids(answer));
    }
    return groups;
}

struct Update {
    Gradients gradients;
    std::vector<std::vector<float>> logprobs;
    TokenCounts counts;
};

Update update_of(SmallModel& model, const std::vector<Group>& groups, const PlanOptions& options) {
    std::vector<SampleSize> sizes;
    std::vector<SampleText> texts;
    for (std::size_t g = 0; g < groups.size(); ++g) {
        for (const auto& answer : groups[g].answers) {
            sizes.push_back(
                {static_cast<std::int64_t>(g), std::ssize(groups[g].prompt), std::ssize(answer)});
            texts.push_back({groups[g].prompt, answer});
        }
    }
    Trainer trainer(model.compute, model.weights, *model.self,
                    {.head = {.ids = model.config.vocab_size}}, {});
    Update update;
    update.logprobs.resize(sizes.size());
    const MinibatchCallbacks callbacks{
        .text = [&](std::int64_t sample) { return texts[static_cast<std::size_t>(sample)]; },
        .loss =
            [&](std::int64_t sample, std::span<const float> logprob, std::span<const float>,
                std::span<float> coefficient) {
                update.logprobs[static_cast<std::size_t>(sample)] = {logprob.begin(),
                                                                     logprob.end()};
                for (std::size_t t = 0; t < coefficient.size(); ++t) {
                    coefficient[t] = sample % 2 == 0 ? 0.25F : -0.125F;
                }
            }};
    (void)trainer.step(plan_minibatch(sizes, options), options, callbacks, 0.0);
    update.gradients = test::gradients_of(model, trainer);
    update.counts = trainer.counts();
    return update;
}

TEST(SharedPrompts, GiveTheBitsOfSeparateForwardPassesAndTheirGradientsWithinRounding) {
    for (const model::Family family :
         {model::Family::qwen2, model::Family::qwen3, model::Family::deepseek_v3}) {
        SmallModel model(test::small_config(family));
        for (const std::int64_t prompt : {1, 63, 64, 65, 130}) {
            SCOPED_TRACE(prompt);
            const auto groups = groups_of({prompt, 5}, {7, 1, 66, 12});
            const Update shared =
                update_of(model, groups, {.chunk_tokens = 1000, .chunk_multiple = 1});
            const Update separate = update_of(
                model, groups, {.chunk_tokens = 1000, .chunk_multiple = 1, .share_prompts = false});
            EXPECT_EQ(shared.logprobs, separate.logprobs);
            EXPECT_LT(test::relative_difference(shared.gradients, separate.gradients), kRounding);
        }
    }
}

TEST(SharedPrompts, AnswersWithoutTokensChangeNothing) {
    for (const model::Family family : {model::Family::qwen2, model::Family::deepseek_v3}) {
        SmallModel model(test::small_config(family));
        // Two a group, so that the others keep the coefficients that their numbers give them.
        const Update with =
            update_of(model, groups_of({40, 5}, {7, 12, 0, 0}), {.chunk_tokens = 60});
        const Update without = update_of(model, groups_of({40, 5}, {7, 12}), {.chunk_tokens = 60});
        EXPECT_EQ(test::relative_difference(with.gradients, without.gradients), 0.0);
        EXPECT_EQ(with.counts.head_rows, without.counts.head_rows);
        // Groups of nothing else: a prompt that nobody learns from.
        const Update none = update_of(model, groups_of({40, 5}, {0, 0}), {.chunk_tokens = 60});
        EXPECT_EQ(none.counts.head_rows, 0);
        for (const auto& logprobs : none.logprobs) EXPECT_TRUE(logprobs.empty());
    }
}

TEST(SharedPrompts, EachIsComputedOnceABundleWhichTheRowsShow) {
    SmallModel model(test::small_config());
    constexpr std::int64_t kAnswers = 7 + 1 + 66 + 12;
    const auto groups = groups_of({40, 25}, {7, 1, 66, 12});
    const std::int64_t answer_rows =
        2 * (kAnswers - 4);  // an answer's last token is nobody's input
    const TokenCounts shared =
        update_of(model, groups, {.chunk_tokens = 1000, .chunk_multiple = 1}).counts;
    EXPECT_EQ(shared.rows, 40 + 25 + answer_rows);
    EXPECT_EQ(shared.shared_rows, 3 * (40 + 25));
    EXPECT_EQ(shared.head_rows, 2 * kAnswers);
    const TokenCounts separate =
        update_of(model, groups,
                  {.chunk_tokens = 1000, .chunk_multiple = 1, .share_prompts = false})
            .counts;
    EXPECT_EQ(separate.rows, 4 * (40 + 25) + answer_rows);
    EXPECT_EQ(separate.shared_rows, 0);
    // A group that does not fit one bundle: its prompt twice.
    const TokenCounts cut =
        update_of(model, groups, {.chunk_tokens = 120, .chunk_multiple = 1}).counts;
    EXPECT_EQ(cut.rows, 2 * 40 + 25 + answer_rows);
    EXPECT_EQ(cut.shared_rows, 2 * 40 + 3 * 25);
}

TEST(SharedPrompts, AScoringPassSharesThemTooAndGivesTheBitsOfTheUpdate) {
    SmallModel model(test::small_config());
    const auto groups = groups_of({70}, {7, 1, 66});
    model::Microbatch together;
    model::append(together, {.prompt = groups[0].prompt,
                             .answers = {groups[0].answers.begin(), groups[0].answers.end()}});
    EXPECT_EQ(together.rows(), 70 + 6 + 0 + 65);
    const model::HeadOptions head{.ids = model.config.vocab_size};
    const auto scored = model::score(model.compute, model.weights, head, together).logprob;
    const Update update = update_of(model, groups, {.chunk_multiple = 1});
    std::vector<float> expected;
    for (const auto& logprobs : update.logprobs) {
        expected.insert(expected.end(), logprobs.begin(), logprobs.end());
    }
    EXPECT_EQ(scored, expected);
    std::vector<float> one_by_one;
    for (const auto& answer : groups[0].answers) {
        std::vector<TokenId> tokens = groups[0].prompt;
        tokens.insert(tokens.end(), answer.begin(), answer.end());
        model::Microbatch alone;
        model::append_sequence(alone, tokens, 70);
        const auto part = model::score(model.compute, model.weights, head, alone).logprob;
        one_by_one.insert(one_by_one.end(), part.begin(), part.end());
    }
    EXPECT_EQ(scored, one_by_one);
}

TEST(SharedPrompts, DevicesChangeNoBitOfTheGradient) {
    const auto groups = groups_of({65, 3}, {7, 1, 70});
    const PlanOptions options{.chunk_tokens = 90, .chunk_multiple = 3};
    for (const model::ModelConfig& config :
         {test::small_config(), test::in_bf16(test::small_config()),
          test::in_bf16(test::small_config(model::Family::qwen3))}) {
        Gradients expected;
        for (const test::DeviceCase& device : test::device_cases()) {
            SmallModel model(config, device);
            const Update update = update_of(model, groups, options);
            if (expected.empty()) expected = update.gradients;
            EXPECT_EQ(update.gradients, expected) << device.name;
        }
    }
}

TEST(SharedPrompts, PairsOfBf16TokensBeginAnewInEachSegmentAndEachAnswersHeadRows) {
    using Borders = std::vector<std::int64_t>;
    const std::vector<TokenId> prompt{1, 2, 3};
    const std::vector<TokenId> three{4, 5, 6};
    const std::vector<TokenId> one{7};
    model::Microbatch batch;
    model::append(batch, {.prompt = prompt, .answers = {three, one}});
    EXPECT_EQ(batch.segment_borders, (Borders{0, 2, 2, 5})) << "a last token has no row";
    EXPECT_EQ(batch.head_borders, (Borders{0, 3, 4}));
    model::append_sequence(batch, std::vector<TokenId>{1, 2, 3, 4}, 2);
    EXPECT_EQ(batch.segment_borders, (Borders{0, 2, 2, 5, 8}));
    EXPECT_EQ(batch.head_borders, (Borders{0, 3, 4, 6}));
}

TEST(SharedPrompts, InBf16TheyGiveTheBitsOfSeparateForwardPasses) {
    SmallModel model(test::in_bf16(test::small_config()));
    const auto groups = groups_of({65, 5}, {7, 1, 66, 12});
    const auto logprobs = [&](bool share) {
        return update_of(model, groups,
                         {.chunk_tokens = 1000, .chunk_multiple = 1, .share_prompts = share})
            .logprobs;
    };
    EXPECT_EQ(logprobs(true), logprobs(false));
}

}  // namespace
}  // namespace rankwise::update
