// Bytes that data ranks send for an update and for scoring: parallel/README.md, exactly.
#include <array>
#include <map>
#include <set>

#include "tests/unit/update/updates_on.hpp"

namespace rankwise::update {
namespace {

using namespace test_updates;
using model::ModelConfig;
using parallel::Schedule;

constexpr auto kOneForwardOneBack = Schedule::one_forward_one_backward;
constexpr std::int64_t kUpdates = 2;

/// Bytes of parameters, by what they belong to.
struct ParameterBytes {
    explicit ParameterBytes(const ModelConfig& config)
        : parameters(model::decoder_parameters(config)) {
        const ParameterTable& table = parameters.table;
        for (ParameterId id = 0; id < table.count(); ++id) {
            if (table[id].layer >= 0) layer[table[id].layer] += of(id);
            if (table[id].expert >= 0) experts[table[id].layer] += of(id);
            all += of(id);
        }
    }
    [[nodiscard]] std::int64_t of(ParameterId id) const {
        return 4 * parameters.table[id].shape.size();
    }
    model::DecoderParameters parameters;
    std::map<std::int64_t, std::int64_t> layer, experts;
    std::int64_t all = 0;
};

std::vector<ModelConfig> data_configs() {
    return {config_of(model::Family::llama, 6), config_of(model::Family::qwen2, 6),
            config_of(model::Family::qwen3, 6), config_of(model::Family::deepseek_v3, 6),
            test::in_bf16(config_of(model::Family::qwen2, 6))};
}

/// A layer is asked for once forward and once backward, in the order of the steps, and where
/// gradients of weights are put off once more if its experts are shared out. The two asked for last
/// are still there: a turn from forward to backward or from backward to forward begins with them.
std::int64_t layer_gathers(const ModelConfig& config, const ParameterBytes& bytes,
                           const model::LayerStage& stage, bool shares_experts,
                           const std::vector<parallel::PipelineStep>& steps) {
    std::vector<std::int64_t> asked;
    for (const parallel::PipelineStep& step : steps) {
        const std::int64_t count = stage.layers.size();
        if (step.kind == parallel::StepKind::backward_weight) {  // others read what is kept
            for (std::int64_t layer = stage.layers.end; layer-- > stage.layers.begin;) {
                if (shares_experts && config.has_experts(layer)) asked.push_back(layer);
            }
            continue;
        }
        for (std::int64_t i = 0; i < count; ++i) {
            asked.push_back(step.kind == parallel::StepKind::forward ? stage.layers.begin + i
                                                                     : stage.layers.end - 1 - i);
        }
    }
    std::int64_t sent = 0;
    std::array<std::int64_t, 2> there{-1, -1};
    for (const std::int64_t layer : asked) {
        if (layer == there[0] || layer == there[1]) {
            if (layer == there[0]) std::swap(there[0], there[1]);
            continue;
        }
        sent += bytes.layer.at(layer);
        there = {there[1], layer};
    }
    return sent;
}

TEST(ShardedTraffic, LayersTravelTwiceAWaveButForTheTwoThatAreStillThere) {
    for (const ModelConfig& config : data_configs()) {
        const ParameterBytes bytes(config);
        const model::DecoderParameters& ids = bytes.parameters;
        for (const std::int64_t ranks : {2, 3}) {
            for (const std::int64_t recompute : {std::int64_t{0}, model::kAllLayers}) {
                SCOPED_TRACE(fmt::format("{} in {} on {} ranks, recompute {}",
                                         name_of(config.family), name_of(config.dtype), ranks,
                                         recompute));
                parallel::ThreadWorld world(narrow<int>(ranks));
                world.run([&](parallel::Communicator& axis) {
                    (void)updates_on(
                        axis, config,
                        {{.data = narrow<int>(ranks)}, kOneForwardOneBack, recompute, 3});
                });
                const std::int64_t waves = plan_minibatch(Data().sizes, kPlan).waves(ranks);
                std::int64_t expected = 0;
                for (std::int64_t layer = 0; layer < config.layers; ++layer)
                    expected += 2 * waves * bytes.layer.at(layer);
                // Between the passes of a wave the last two layers, between waves the first two.
                const std::int64_t last = config.layers - 1;
                expected -= waves * (bytes.layer.at(last) + bytes.layer.at(last - 1));
                expected -= (waves - 1) * (bytes.layer.at(0) + bytes.layer.at(1));
                // One room for embedding and head; the final norm has its own.
                const std::int64_t tables =
                    config.tied ? bytes.of(ids.head)
                                : waves * (bytes.of(ids.embedding) + bytes.of(ids.head));
                expected += tables + bytes.of(ids.final_norm);
                EXPECT_EQ(test::sent(world, {.over = "data", .kinds = {"weights"}}).bytes,
                          kUpdates * (ranks - 1) * expected);
            }
        }
    }
}

TEST(ShardedTraffic, InAPipelineEachRankGathersItsOwnLayersAndItsTableOnceAStep) {
    for (const model::Family family : {model::Family::llama, model::Family::qwen2}) {
        const ModelConfig config = config_of(family, 8);
        const ParameterBytes bytes(config);
        const model::DecoderParameters& ids = bytes.parameters;
        for (const Schedule schedule : {kOneForwardOneBack, Schedule::zero_bubble}) {
            constexpr int kData = 2;
            constexpr int kPipeline = 2;
            SCOPED_TRACE(fmt::format("{}, {}", name_of(family), parallel::name_of(schedule)));
            parallel::ThreadWorld world(kData * kPipeline);
            world.run([&](parallel::Communicator& axis) {
                (void)updates_on(axis, config,
                                 {{.data = kData, .pipeline = kPipeline}, schedule, 0, 3});
            });
            const std::int64_t waves = plan_minibatch(Data().sizes, kPlan).waves(kData);
            std::int64_t expected = bytes.of(ids.head) + bytes.of(ids.final_norm);
            if (!config.tied) expected += bytes.of(ids.embedding);
            for (int rank = 0; rank < kPipeline; ++rank) {
                const auto part = model::pipeline_part(config, {kPipeline, rank, 1});
                expected +=
                    layer_gathers(config, bytes, part.stages.front(), false,
                                  parallel::pipeline_steps(schedule, kPipeline, rank, waves, 1));
            }
            EXPECT_EQ(test::sent(world, {.over = "data", .kinds = {"weights"}}).bytes,
                      kUpdates * (kData - 1) * expected);
        }
    }
}

/// Rows of experts go to those data ranks alone that compute with them.
TEST(ShardedTraffic, ALayerWhoseExpertsAreSharedOutTravelsAThirdTimeWhereItsGradientsArePutOff) {
    const ModelConfig config = config_of(model::Family::deepseek_v3, 8);
    for (const Schedule schedule : {kOneForwardOneBack, Schedule::zero_bubble}) {
        for (const int data : {2, 4}) {
            constexpr int kPipeline = 2;
            constexpr int kExpert = 2;
            ParameterBytes bytes(config);
            for (auto& [layer, size] : bytes.layer) {  // sent by all ranks together
                const std::int64_t rest = size - bytes.experts[layer];
                size = (data - 1) * rest + (data / kExpert - 1) * bytes.experts[layer];
            }
            const parallel::MeshShape shape{.data = data, .pipeline = kPipeline, .expert = kExpert};
            parallel::ThreadWorld world(narrow<int>(shape.ranks()));
            world.run([&](parallel::Communicator& axis) {
                (void)updates_on(axis, config, {shape, schedule, 0, 3});
            });
            const std::int64_t waves = plan_minibatch(Data().sizes, kPlan).waves(data);
            const model::DecoderParameters& ids = bytes.parameters;
            std::int64_t expected = (data - 1) * (bytes.of(ids.head) + bytes.of(ids.final_norm) +
                                                  bytes.of(ids.embedding));
            for (int rank = 0; rank < kPipeline; ++rank) {
                const auto part = model::pipeline_part(config, {kPipeline, rank, 1});
                expected +=
                    layer_gathers(config, bytes, part.stages.front(), true,
                                  parallel::pipeline_steps(schedule, kPipeline, rank, waves, 1));
            }
            EXPECT_EQ(test::sent(world, {.over = "data", .kinds = {"weights"}}).bytes,
                      kUpdates * expected)
                << parallel::name_of(schedule) << " on " << data << " data ranks";
        }
    }
}

TEST(ShardedTraffic, ScoringAsksForLayersOnceABatchAndForTheHeadOnce) {
    for (const ModelConfig& config : data_configs()) {
        const ParameterBytes bytes(config);
        const model::DecoderParameters& ids = bytes.parameters;
        const std::vector<model::Microbatch> batches =
            batches_of(plan_minibatch(Data().sizes, kPlan));
        constexpr std::int64_t kRanks = 2;
        parallel::ThreadWorld world(kRanks);
        world.run([&](parallel::Communicator& data) {
            test::SmallModel model(config, test::plain_device(), 1, 0.4, {.shards = &data});
            (void)model::score(model.compute, model.weights, {.ids = config.vocab_size}, batches);
        });
        std::int64_t expected = bytes.of(ids.head) + bytes.of(ids.final_norm);
        // The head's rows take the embedding's place once, and are packed from then on.
        if (!config.tied) expected += 2 * bytes.of(ids.embedding);
        for (const auto& [layer, size] : bytes.layer) expected += std::ssize(batches) * size;
        EXPECT_EQ(test::sent(world, {.kinds = {"weights"}}).bytes, (kRanks - 1) * expected)
            << name_of(config.family);
    }
}

/// Gradients of every chunk to the owners of their rows, those of the embedding by id; after the
/// update the totals, the weights or nothing.
TEST(DataTraffic, GradientsTravelOnceAWaveAndWhatFollowsDependsOnZero) {
    for (const ModelConfig& config : data_configs()) {
        const ParameterBytes bytes(config);
        const ParameterId embedding = bytes.parameters.embedding;
        const ParameterTable& table = bytes.parameters.table;
        const MinibatchPlan plan = plan_minibatch(Data().sizes, kPlan);
        for (const int ranks : {2, 3}) {
            std::vector<Shape> shapes;
            std::vector<bool> frozen;
            for (ParameterId id = 0; id < table.count(); ++id) {
                shapes.push_back(table[id].shape);
                frozen.push_back(!table[id].trained);
            }
            const parallel::ShardMap owners(shapes, ranks, frozen);
            std::int64_t gradients = 0;
            const auto waves = plan.waves(ranks);
            const std::vector<model::Microbatch> batches = batches_of(plan);
            std::size_t at = 0;
            for (std::int64_t wave = 0; wave < waves; ++wave) {
                gradients += ranks * (ranks - 1) * 8;  // how many ids
                for (int rank = 0; rank < ranks; ++rank) {
                    if (plan.chunk(wave, ranks, rank).empty()) continue;
                    const model::Microbatch& chunk = batches[at++];
                    for (int owner = 0; owner < ranks; ++owner) {
                        if (owner == rank) continue;
                        for (ParameterId id = 0; id < table.count(); ++id) {
                            const auto piece = owners.piece(owner, id);
                            if (!piece || !table[id].trained) continue;
                            if (id != embedding || config.tied) gradients += 4 * piece->size;
                            if (id != embedding) continue;
                            for (const TokenId token :
                                 std::set(chunk.ids.begin(), chunk.ids.end())) {
                                if (piece->rows.contains(token))
                                    gradients += 4 * (config.hidden + 1);
                            }
                        }
                    }
                }
            }
            std::int64_t trained = 0;
            for (ParameterId id = 0; id < table.count(); ++id)
                trained += table[id].trained ? bytes.of(id) : 0;
            for (const int zero : {0, 1, 3}) {
                parallel::ThreadWorld world(ranks);
                world.run([&](parallel::Communicator& axis) {
                    (void)updates_on(axis, config, {{.data = ranks}, kOneForwardOneBack, 0, zero});
                });
                test::Sent what{.over = "data", .kinds = {"gradients"}};
                if (zero != 3) what.kinds.emplace_back("weights");
                const std::int64_t after = zero == 3 ? 0 : (ranks - 1) * trained;
                EXPECT_EQ(test::sent(world, what).bytes, kUpdates * (gradients + after))
                    << name_of(config.family) << " on " << ranks << " ranks, zero " << zero;
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::update
