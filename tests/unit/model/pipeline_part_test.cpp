// A model whose layers are dealt to pipeline ranks: what each holds, and the log-probabilities of
// one rank.
#include "src/model/pipeline_part.hpp"

#include <gtest/gtest.h>

#include "parallel/thread_world.hpp"
#include "src/model/decoder.hpp"
#include "tests/support/small_model.hpp"
#include "tests/support/traffic.hpp"

namespace rankwise::model {
namespace {

using parallel::Communicator;

ModelConfig config_of(Family family, std::int64_t layers) {
    ModelConfig config = test::small_config(family);
    config.layers = layers;
    if (family == Family::deepseek_v3) config.extra_layers = 1;  // carried along
    return config;
}

struct Place {
    int ranks;
    int virtual_stages;
};

/// Degrees that do not divide the layers too.
constexpr Place kPlaces[] = {{2, 1}, {3, 1}, {5, 1}, {2, 2}};

void on_every_place(const std::function<void(const ModelConfig&, PipelineAxis)>& body) {
    // Two tables; a tied one; experts behind a dense layer.
    for (const Family family : {Family::llama, Family::qwen2, Family::deepseek_v3}) {
        for (const Place& place : kPlaces) {
            SCOPED_TRACE(fmt::format("{} on {} ranks, {} virtual stages", name_of(family),
                                     place.ranks, place.virtual_stages));
            parallel::ThreadWorld(place.ranks).run([&](Communicator& axis) {
                body(config_of(family, 5), {&axis, place.virtual_stages});
            });
        }
    }
}

TEST(PipelinePart, RanksHoldEveryParameterOnceAndTheDigestIsThatOfOneRank) {
    on_every_place([](const ModelConfig& config, PipelineAxis pipeline) {
        test::SmallModel alone(config);
        test::SmallModel rank(config, test::plain_device(), 1, 0.4, {.pipeline = pipeline});
        EXPECT_EQ(rank.weights.digests(rank.compute), alone.weights.digests(alone.compute));
        for (ParameterId id = 0; id < rank.weights.table().count(); ++id) {
            EXPECT_EQ(pipeline.axis->all_reduce_sum("sizes", rank.weights.box(id).size()),
                      rank.weights.table()[id].shape.size())
                << rank.weights.table()[id].name;
        }
    });
}

TEST(PipelinePart, LayersOfVirtualStagesLieInTurnOnTheRanks) {
    const ModelConfig config = config_of(Family::llama, 8);
    for (int rank = 0; rank < 2; ++rank) {
        const PipelinePart part = pipeline_part(config, {2, rank, 2});
        ASSERT_EQ(part.stages.size(), 2U);
        EXPECT_EQ(part.stages[0].layers.begin, rank == 0 ? 0 : part.stages[0].layers.begin);
        EXPECT_EQ(part.stages[0].first, rank == 0);
        EXPECT_EQ(part.stages[1].last, rank == 1);
        EXPECT_EQ(part.has_head, rank == 1);
        EXPECT_EQ(part.layer_count(), part.stages[0].layers.size() + part.stages[1].layers.size());
        std::int64_t at = 0;
        for (const LayerStage& stage : part.stages) {
            for (std::int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
                EXPECT_TRUE(part.holds_layer(layer));
                EXPECT_EQ(part.local_layer(layer), at++);
            }
        }
    }
    EXPECT_EQ(pipeline_part(config, {2, 0, 2}).stages[1].layers.begin,
              pipeline_part(config, {2, 1, 2}).stages[0].layers.end);
}

TEST(PipelinePart, DearLayersLeaveTheirStageFewerOfThem) {
    ModelConfig config = config_of(Family::deepseek_v3, 9);
    config.intermediate = 12;
    config.experts.first_dense = 5;  // cheap, before layers of three experts and a shared one
    EXPECT_EQ(pipeline_part(config, {2, 0}).layer_count(), 6);
    config.intermediate = 600;  // dear
    EXPECT_EQ(pipeline_part(config, {2, 0}).layer_count(), 3);
}

TEST(PipelinePart, ATiedEmbeddingLiesOnTheLastRankAloneAndItsStageHasFewerLayers) {
    ModelConfig config = config_of(Family::qwen2, 5);
    config.vocab_size = 1000;
    const PipelinePart first = pipeline_part(config, {2, 0});
    const PipelinePart last = pipeline_part(config, {2, 1});
    EXPECT_FALSE(first.has_embedding);
    EXPECT_TRUE(last.has_embedding && last.has_head);
    EXPECT_LT(last.layer_count(), first.layer_count());
    config.tied = false;
    EXPECT_TRUE(pipeline_part(config, {2, 0}).has_embedding);
    EXPECT_FALSE(pipeline_part(config, {2, 1}).has_embedding);
}

TEST(PipelinePart, AModuleThatTrainsTakesLayersOfTheLastStage) {
    ModelConfig config = config_of(Family::deepseek_v3, 9);
    config.experts.first_dense = 0;  // all layers cost the same, and so does the module's
    const auto last = [&](bool with_modules) {
        return pipeline_part(config, {3, 2, 1, with_modules}).layer_count();
    };
    EXPECT_EQ(last(false), 3);
    EXPECT_EQ(last(true), 2);
    config.vocab_size = 2000;  // it goes through the head again
    EXPECT_EQ(last(true), 1);
    config.extra_layers = 0;
    EXPECT_EQ(last(true), last(false));
}

TEST(PipelinePart, CountingTheModuleChangesWhereWeightsLieAndNoBitOfThem) {
    ModelConfig config = config_of(Family::deepseek_v3, 6);
    config.experts.first_dense = 0;
    test::SmallModel alone(config);
    parallel::ThreadWorld(2).run([&](Communicator& axis) {
        const PipelineAxis pipeline{&axis, 1, true};
        test::SmallModel rank(config, test::plain_device(), 1, 0.4, {.pipeline = pipeline});
        EXPECT_EQ(rank.weights.digests(rank.compute), alone.weights.digests(alone.compute));
        const bool last = axis.rank() == 1;
        EXPECT_EQ(rank.weights.pipeline_part().layer_count(), last ? 2 : 4);
    });
}

/// Some micro-batches, of several sizes.
std::vector<Microbatch> batches_of(std::int64_t count) {
    static const std::vector<TokenId> prompt{1, 5, 9, 30, 2};
    static const std::vector<TokenId> answer{33, 4, 4, 8};
    std::vector<Microbatch> batches;
    for (std::int64_t i = 0; i < count; ++i) {
        Microbatch& batch = batches.emplace_back();
        for (std::int64_t bundle = 0; bundle <= i % 3; ++bundle)
            append(batch, {.prompt = prompt, .answers = {answer, prompt}});
    }
    return batches;
}

TEST(PipelinePart, TheLastRankScoresAsOneRankBitForBitAndTheOthersKnowNothing) {
    const std::vector<Microbatch> batches = batches_of(7);
    on_every_place([&](const ModelConfig& config, PipelineAxis pipeline) {
        const HeadOptions head{.ids = config.vocab_size - 1, .temperature = 0.7F};
        test::SmallModel alone(config);
        test::SmallModel rank(config, test::plain_device(), 1, 0.4, {.pipeline = pipeline});
        const auto scored = score(rank.compute, rank.weights, head, batches);
        ASSERT_EQ(scored.size(), batches.size());
        for (std::size_t i = 0; i < batches.size(); ++i) {
            const Logprobs expected = score(alone.compute, alone.weights, head, batches[i]);
            const bool knows = rank.weights.pipeline_part().has_head;
            EXPECT_EQ(scored[i].logprob, knows ? expected.logprob : std::vector<float>());
            EXPECT_EQ(scored[i].entropy, knows ? expected.entropy : std::vector<float>());
        }
    });
}

/// parallel/README.md: streams from stage to stage, and to the first rows of a tied embedding.
TEST(PipelinePart, BytesSentForScoringAreThoseOfTheFormula) {
    const std::vector<Microbatch> batches = batches_of(7);
    std::int64_t rows = 0;
    for (const Microbatch& batch : batches) rows += batch.rows();
    for (const Family family : {Family::llama, Family::qwen2}) {
        for (const bool bf16 : {false, true}) {
            for (const Place& place : kPlaces) {
                const ModelConfig config =
                    bf16 ? test::in_bf16(config_of(family, 5)) : config_of(family, 5);
                parallel::ThreadWorld world(place.ranks);
                world.run([&](Communicator& axis) {
                    test::SmallModel rank(config, test::plain_device(), 1, 0.4,
                                          {.pipeline = {&axis, place.virtual_stages}});
                    (void)score(rank.compute, rank.weights, {.ids = config.vocab_size}, batches);
                });
                const std::int64_t hops = std::int64_t{place.ranks} * place.virtual_stages - 1;
                EXPECT_EQ(test::sent(world).bytes, (hops + (config.tied ? 1 : 0)) * rows *
                                                       config.hidden * size_of(config.dtype))
                    << name_of(family) << " in " << rankwise::name_of(config.dtype) << " on "
                    << place.ranks << " ranks";
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::model
