// Rows of a module that predicts one token further.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/model/decoder.hpp"
#include "tests/support/pass_gradients.hpp"

namespace rankwise::model {
namespace {

using testing::ElementsAre;

ModelConfig module_config() {
    ModelConfig config = test::small_config(Family::deepseek_v3);
    config.extra_layers = 1;
    return config;
}

TEST(MtpRows, EachReadsTheTokenAfterItsOwnAndPredictsTheOneAfterThat) {
    const std::vector<TokenId> tokens{5, 6, 7, 8, 9};
    Microbatch batch;
    append_sequence(batch, tokens, 2, true);
    append_sequence(batch, tokens, 1, true);
    EXPECT_THAT(batch.ids, ElementsAre(5, 6, 7, 8, 5, 6, 7, 8));
    EXPECT_THAT(batch.following, ElementsAre(6, 7, 8, 9, 6, 7, 8, 9));
    const auto pairs = [&] {
        std::vector<std::pair<std::int64_t, TokenId>> all;
        for (const HeadRow& row : batch.further) all.emplace_back(row.row, row.target);
        return all;
    }();
    using Pair = std::pair<std::int64_t, TokenId>;
    // Token 6, the second, has no row from which a module could predict it.
    EXPECT_THAT(
        pairs, ElementsAre(Pair{0, 7}, Pair{1, 8}, Pair{2, 9}, Pair{4, 7}, Pair{5, 8}, Pair{6, 9}));
    EXPECT_THAT(batch.further_borders, ElementsAre(0, 3, 6));
    EXPECT_EQ(batch.head.size(), 3U + 4U);
}

TEST(MtpRows, ASequenceOfTwoTokensGivesTheModuleNothingToPredict) {
    test::SmallModel model(module_config());
    model.weights.use_mtp(model.compute, true);
    const std::vector<TokenId> tokens{5, 6};
    Microbatch batch;
    append_sequence(batch, tokens, 1, true);
    EXPECT_TRUE(batch.further.empty());
    const HeadOptions head{.ids = model.config.vocab_size};
    TrainingPass pass(model.compute, model.weights, head, batch, false);
    test::PassGradients gradients(model);
    pass.backward(std::vector<float>{1.0F}, gradients);
    for (const float value : gradients.values(model.weights.mtp_ids().projection))
        ASSERT_EQ(value, 0.0F);
}

TEST(MtpRows, ThoseOfTheDecoderAreTheSameWithAndWithoutAModule) {
    test::SmallModel model(module_config());
    const std::vector<TokenId> tokens{5, 6, 7, 1, 30};
    Microbatch plain;
    append_sequence(plain, tokens, 1);
    const HeadOptions head{.ids = model.config.vocab_size};
    const Logprobs expected = score(model.compute, model.weights, head, plain);
    model.weights.use_mtp(model.compute, true);
    Microbatch batch;
    append_sequence(batch, tokens, 1, true);
    TrainingPass pass(model.compute, model.weights, head, batch, false);
    const Logprobs all = pass.logprobs();
    ASSERT_EQ(all.logprob.size(), 4U + 3U);
    EXPECT_EQ(std::vector(all.logprob.begin(), all.logprob.begin() + 4), expected.logprob);
    EXPECT_EQ(score(model.compute, model.weights, head, plain).logprob, expected.logprob);
}

}  // namespace
}  // namespace rankwise::model
