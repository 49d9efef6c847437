#include "src/update/router_bias.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "parallel/thread_world.hpp"
#include "src/update/trainer.hpp"
#include "tests/support/small_model.hpp"

namespace rankwise::update {
namespace {

using test::SmallModel;
using testing::ElementsAre;

ParameterId bias_of(SmallModel& model) {
    return model.weights.parameters().layers[1].router_bias;
}

TEST(RouterBias, MovesTowardAnEvenLoadByOneStep) {
    SmallModel model(test::small_config(model::Family::deepseek_v3));
    level_router_biases(model.compute, model.weights, *model.self, {{}, {0, 5, 3, 3, 4, 2, 4, 3}},
                        0.25);
    EXPECT_THAT(model.values(bias_of(model)),
                ElementsAre(0.25F, -0.25F, 0.0F, 0.0F, -0.25F, 0.25F, -0.25F, 0.0F));
}

TEST(RouterBias, WithoutTokensStaysAsItIs) {
    SmallModel model(test::small_config(model::Family::deepseek_v3));
    level_router_biases(model.compute, model.weights, *model.self,
                        {{}, std::vector<std::int64_t>(8, 0)}, 0.25);
    EXPECT_EQ(model.values(bias_of(model)), std::vector<float>(8, 0.0F));
}

TEST(RouterBias, LoadsOfAllRanksCountTogether) {
    parallel::ThreadWorld(2).run([](parallel::Communicator& data) {
        SmallModel model(test::small_config(model::Family::deepseek_v3));
        std::vector<std::int64_t> load(8, 3);
        load[static_cast<std::size_t>(data.rank())] = 1 + 4 * data.rank();
        // Together 1 + 3, 3 + 5 and six times 6: a mean of 6.
        level_router_biases(model.compute, model.weights, data, {{}, load}, 0.5);
        EXPECT_THAT(model.values(bias_of(model)),
                    ElementsAre(0.5F, -0.5F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F));
    });
}

/// An update over one sequence; the tokens that experts got.
ExpertLoads update_once(SmallModel& model, double rate) {
    const std::vector<TokenId> tokens{3, 14, 15, 9, 2, 6, 5, 35, 8, 9, 7, 9};
    const std::vector<SampleSize> sizes{{0, 1, 11}};
    const PlanOptions options{.chunk_tokens = 100, .chunk_multiple = 1};
    Trainer trainer(model.compute, model.weights, *model.self,
                    {.head = {.ids = model.config.vocab_size}}, {.router_bias_rate = rate});
    const MinibatchCallbacks callbacks{
        .text =
            [&](std::int64_t) {
                const std::span<const TokenId> all(tokens);
                return SampleText{all.first(1), all.subspan(1)};
            },
        .loss = [](std::int64_t, std::span<const float>, std::span<const float>,
                   std::span<float> coefficient) { std::ranges::fill(coefficient, 0.5F); }};
    (void)trainer.step(plan_minibatch(sizes, options), options, callbacks, 1e-3);
    return trainer.expert_loads();
}

TEST(RouterBias, AnUpdateCountsEveryRowAsOftenAsItHasExpertsAndMovesOnlyIfAsked) {
    for (const double rate : {0.0, 0.5}) {
        SmallModel model(test::small_config(model::Family::deepseek_v3));
        const ExpertLoads loads = update_once(model, rate);
        EXPECT_TRUE(loads[0].empty());
        std::int64_t total = 0;
        for (const std::int64_t load : loads[1]) total += load;
        EXPECT_EQ(total, 11 * 3);
        const auto bias = model.values(bias_of(model));
        for (std::size_t expert = 0; expert < 8; ++expert) {
            const double share = static_cast<double>(total) / 8.0;
            const double way = static_cast<double>(loads[1][expert]) < share ? 1.0 : -1.0;
            EXPECT_EQ(static_cast<double>(bias[expert]), rate * way) << expert;
        }
    }
}

}  // namespace
}  // namespace rankwise::update
