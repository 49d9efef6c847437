// Weights whose rows are shared out over data ranks (ZeRO-3): the bits of one rank that has all.
#include <gtest/gtest.h>

#include "parallel/thread_world.hpp"
#include "tests/support/pass_gradients.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::model {
namespace {

using parallel::Communicator;

/// Biases and no tie; tied; head norms; experts behind a dense layer, and a layer that is not read;
/// as many layers as slots, one less, and more; one in bf16.
std::vector<ModelConfig> configs() {
    std::vector<ModelConfig> all;
    for (const Family family : {Family::llama, Family::qwen2, Family::qwen3}) {
        ModelConfig& config = all.emplace_back(test::small_config(family));
        config.layers = 1 + std::ssize(all);
    }
    for (const Family family : {Family::deepseek_v2, Family::deepseek_v3}) {
        ModelConfig& config = all.emplace_back(test::small_config(family));
        config.layers = std::ssize(all) - 1;
    }
    all.back().extra_layers = 1;
    all[2].layers = 5;
    all.front().qkv_bias = all.front().o_bias = all.front().mlp_bias = true;
    all.front().layers = 1;
    all.push_back(test::in_bf16(all.front()));
    return all;
}

struct Rank : test::SmallModel {
    Rank(const ModelConfig& configuration, Communicator* shards)
        : SmallModel(configuration, test::plain_device(), 1, 0.4, {.shards = shards}) {}
    [[nodiscard]] const LayerStage& stage() const { return weights.pipeline_part().stages.front(); }
};

void on_several_ranks(const ModelConfig& config,
                      const std::function<void(Communicator& data)>& body) {
    for (const int ranks : {2, 3, 5}) {
        SCOPED_TRACE(fmt::format("{} with {} layers on {} ranks", name_of(config.family),
                                 config.layers, ranks));
        parallel::ThreadWorld(ranks).run(body);
    }
}

struct Texts {
    Texts() { append(batch, {.prompt = a, .answers = {b, c, a}}); }
    std::vector<TokenId> a{1, 5, 9, 30, 2};
    std::vector<TokenId> b{33, 4, 4, 8};
    std::vector<TokenId> c{7};
    Microbatch batch;
};

TEST(ShardedWeights, EveryRowIsHeldOnceAndTheDigestIsThatOfOneRank) {
    for (const ModelConfig& config : configs()) {
        Rank alone(config, nullptr);
        const std::vector<UInt128> expected = alone.weights.digests(alone.compute);
        on_several_ranks(config, [&](Communicator& data) {
            Rank rank(config, &data);
            EXPECT_EQ(rank.weights.digests(rank.compute), expected);
            for (ParameterId id = 0; id < rank.weights.table().count(); ++id) {
                EXPECT_EQ(data.all_reduce_sum("sizes", rank.weights.box(id).size()),
                          rank.weights.table()[id].shape.size());
            }
        });
    }
}

TEST(ShardedWeights, ScoresAreThoseOfOneRankAlsoWhereOthersHaveNothingToScore) {
    const Texts texts;
    for (const ModelConfig& config : configs()) {
        const HeadOptions head{.ids = config.vocab_size - 1, .temperature = 0.7F};
        Rank alone(config, nullptr);
        const Logprobs expected = score(alone.compute, alone.weights, head, texts.batch);
        on_several_ranks(config, [&](Communicator& data) {
            Rank rank(config, &data);
            for (const int idle : {-1, 0, 1}) {
                if (data.rank() == idle) {
                    follow_forward(rank.compute, rank.weights, rank.stage());
                    continue;
                }
                const Logprobs scored = score(rank.compute, rank.weights, head, texts.batch);
                EXPECT_EQ(scored.logprob, expected.logprob);
                EXPECT_EQ(scored.entropy, expected.entropy);
            }
        });
    }
}

TEST(ShardedWeights, GradientsAreThoseOfOneRankAlsoWhereOthersHaveNoChunk) {
    const Texts texts;
    for (const ModelConfig& config : configs()) {
        Rank alone(config, nullptr);
        test::PassGradients expected(alone);
        test::run_backward(alone, {.ids = 36}, texts.batch, false, expected);
        for (const std::int64_t recompute : {std::int64_t{0}, std::int64_t{1}, kAllLayers}) {
            on_several_ranks(config, [&](Communicator& data) {
                Rank rank(config, &data);
                test::PassGradients sink(rank);
                if (data.rank() == 1) {
                    follow_forward(rank.compute, rank.weights, rank.stage());
                    rank.weights.gather_head(rank.compute, Copies::backward);
                    for (std::int64_t layer = config.layers; layer-- > 0;)
                        gather_backward(rank.compute, rank.weights, rank.stage(), layer, recompute);
                } else {
                    test::run_backward(rank, {.ids = 36}, texts.batch, recompute, sink);
                    EXPECT_EQ(sink.values(), expected.values());
                }
            });
        }
    }
}

TEST(ShardedWeights, HoldTwoLayersAtMostAndNoneAfterAChange) {
    ModelConfig config = test::small_config(Family::llama);
    config.layers = 4;
    const Texts texts;
    parallel::ThreadWorld(2).run([&](Communicator& data) {
        Rank rank(config, &data);
        const auto there = [&](std::int64_t layer) {
            try {
                (void)rank.weights.layer(layer);
                return true;
            } catch (const InternalError&) {
                return false;
            }
        };
        (void)score(rank.compute, rank.weights, {.ids = 37}, texts.batch);
        EXPECT_FALSE(there(1));
        EXPECT_TRUE(there(3));
        rank.weights.pack(rank.compute);
        EXPECT_FALSE(there(3));
        const kernels::Arena::Scope scope(rank.arena);
        rank.weights.hold_all(rank.compute);
        for (std::int64_t layer = 0; layer < config.layers; ++layer) EXPECT_TRUE(there(layer));
        EXPECT_THROW(rank.weights.pack(rank.compute), InternalError);
        rank.weights.drop_all();
    });
}

TEST(ShardedWeights, TakeTheirShareOfTheMemoryAndTwoLayers) {
    ModelConfig config = test::small_config(Family::llama);
    config.layers = 40;
    Rank alone(config, nullptr);
    const std::int64_t whole = alone.device->bytes_in_use();
    parallel::ThreadWorld(4).run([&](Communicator& data) {
        Rank rank(config, &data);
        EXPECT_LT(rank.device->bytes_in_use(), whole / 4);
    });
}

}  // namespace
}  // namespace rankwise::model
