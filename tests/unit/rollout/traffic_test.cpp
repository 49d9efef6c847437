// Bytes that ranks send while they generate: the tables of parallel/README.md, row by row and
// exactly.
#include "tests/support/traffic.hpp"

#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

/// No leaf is empty, so that every tensor rank has terms.
model::ModelConfig roomy(model::Family family) {
    model::ModelConfig config = test::small_config(family);
    config.layers = 5;
    config.intermediate = 96;
    config.vocab_size = 100;
    if (config.experts.routed > 0) config.experts.shared *= 8;
    return config;
}

/// Rows that a phase of generation computes.
struct PhaseRows {
    std::int64_t prompts = 0;  ///< all but the last token of each
    std::int64_t drawn = 0;
    std::int64_t prompt_ids = 0;  ///< ids that occur in prompts
};

PhaseRows rows_of(std::span<const Request> requests, std::span<const Trajectory> answers) {
    PhaseRows rows;
    std::set<TokenId> ids;
    for (const Request& request : requests) {
        rows.prompts += std::ssize(request.prompt) - 1;
        ids.insert(request.prompt.begin(), request.prompt.end());
    }
    rows.prompt_ids = std::ssize(ids);
    for (const Trajectory& answer : answers) rows.drawn += answer.answer_size();
    return rows;
}

/// Answers on the ranks of a mesh that has one data rank; what they sent stays in `world`.
std::vector<Trajectory> generated_in(parallel::ThreadWorld& world, const test::MeshCase& c,
                                     const model::ModelConfig& config,
                                     std::span<const Request> requests,
                                     const SamplingOptions& sampling) {
    test::Together answers;
    world.run([&](parallel::Communicator& communicator) {
        test::MeshRank rank(c, config, communicator);
        const auto mine = rank.generate(requests, sampling);
        if (rank.speaks()) answers.add(mine);
    });
    return answers.all();
}

struct TensorCase {
    model::ModelConfig config;
    int ranks;
};

std::vector<TensorCase> tensor_cases() {
    model::ModelConfig bare = roomy(model::Family::deepseek_v2);
    bare.experts.shared = 0;
    return {{roomy(model::Family::llama), 2},
            {roomy(model::Family::qwen3), 4},
            {test::in_bf16(roomy(model::Family::qwen2)), 2},
            {test::in_bf16(roomy(model::Family::llama)), 4},
            {roomy(model::Family::deepseek_v3), 4},
            {bare, 2}};
}

/// What all tensor ranks send for one row of a pass through the layers, its embedding included.
std::int64_t bytes_of_row(const model::ModelConfig& config, std::int64_t ranks) {
    const std::int64_t turn = (ranks - 1) * 4 * config.hidden;
    std::int64_t bytes = (ranks - 1) * size_of(config.dtype) * config.hidden;
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
        const bool experts = config.has_experts(layer);
        const std::int64_t sums = experts && config.experts.shared == 0 ? 1 : 2;
        bytes += sums * ranks * turn + (experts ? turn : 0);
    }
    return bytes;
}

TEST(GenerationTraffic, OfTensorRanksIsThatOfTheTableWithAndWithoutAFilter) {
    for (const auto& [config, ranks] : tensor_cases()) {
        for (const bool filtered : {false, true}) {
            SCOPED_TRACE(fmt::format("{} in {} on {} ranks, filtered {}", name_of(config.family),
                                     name_of(config.dtype), ranks, filtered));
            const auto requests = test::requests_of({3, 40, 1, 20}, 3, config.vocab_size);
            const SamplingOptions sampling{
                .top_k = filtered ? 5 : 0, .max_new_tokens = 6, .stop_ids = {0}, .seed = 4};
            parallel::ThreadWorld world(ranks);
            const PhaseRows rows = rows_of(
                requests, generated_in(world, {{.tensor = ranks}}, config, requests, sampling));
            const std::int64_t others = ranks * (ranks - 1);
            std::int64_t token = others * 4 * (3 * config.tree().leaves() / ranks + 1);
            token += filtered ? (ranks - 1) * 4 * config.vocab_size : others * 8;
            EXPECT_EQ(
                test::sent(world, {.over = "tensor", .other_than = {"work"}}).bytes,
                (rows.prompts + rows.drawn) * bytes_of_row(config, ranks) + rows.drawn * token);
        }
    }
}

/// src/sums/README.md: one message to each rank for a sum, two sums a layer, and one for what is
/// known of the vocabulary; beside them the look-up and the choice.
TEST(GenerationTraffic, AStepOfFewAnswersTakesOneMessageASumToEachTensorRank) {
    const model::ModelConfig config = roomy(model::Family::llama);
    for (const int ranks : {2, 4}) {
        const auto requests = test::requests_of({2}, 2, config.vocab_size);
        const SamplingOptions sampling{.max_new_tokens = 6, .seed = 4};
        parallel::ThreadWorld world(ranks);
        (void)generated_in(world, {{.tensor = ranks}}, config, requests, sampling);
        constexpr std::int64_t kPromptPasses = 1;
        const std::int64_t passes = kPromptPasses + sampling.max_new_tokens;
        EXPECT_EQ(test::sent(world, {.over = "tensor", .kinds = {"sums"}}).calls,
                  ranks * (passes * 2 * config.layers + sampling.max_new_tokens));
        EXPECT_EQ(test::sent(world, {.over = "tensor", .kinds = {"activations", "tokens"}}).calls,
                  ranks * (passes + sampling.max_new_tokens));
    }
}

TEST(GenerationTraffic, OfPipelineRanksIsThatOfTheTable) {
    for (const model::Family family : {model::Family::llama, model::Family::qwen2}) {
        for (const bool bf16 : {false, true}) {
            for (const test::MeshCase& c :
                 {test::MeshCase{{.pipeline = 2}}, test::MeshCase{{.pipeline = 3}},
                  test::MeshCase{{.pipeline = 2}, false, false, 0, 2}}) {
                model::ModelConfig config = roomy(family);
                if (bf16) config = test::in_bf16(config);
                SCOPED_TRACE(fmt::format("{} in {}, {}", name_of(family), name_of(config.dtype),
                                         to_string(c)));
                const auto requests = test::requests_of({3, 40, 1, 20}, 3, config.vocab_size);
                const SamplingOptions sampling{.max_new_tokens = 6, .stop_ids = {0}, .seed = 4};
                parallel::ThreadWorld world(c.shape.pipeline);
                const PhaseRows rows =
                    rows_of(requests, generated_in(world, c, config, requests, sampling));
                const std::int64_t row = size_of(config.dtype) * config.hidden;
                const std::int64_t hops = std::int64_t{c.shape.pipeline} * c.virtual_stages - 1;
                std::int64_t expected = (rows.prompts + rows.drawn) * hops * row;
                expected += rows.drawn * 8 * (c.shape.pipeline - 1);
                if (config.tied) expected += (rows.prompt_ids + rows.drawn) * row;
                EXPECT_EQ(test::sent(world, {.over = "pipeline", .other_than = {"work"}}).bytes,
                          expected);
            }
        }
    }
}

/// Each rank generates the same answers, so that the rows of a choice travel for all ranks but the
/// one that has its expert.
TEST(GenerationTraffic, OfExpertRanksIsThatOfTheTable) {
    const model::ModelConfig config = roomy(model::Family::deepseek_v3);
    const auto requests = test::requests_of({6}, 2, config.vocab_size);
    const SamplingOptions sampling{.max_new_tokens = 6, .seed = 4};
    constexpr std::int64_t kSamples = 2;
    const std::int64_t rows = 5 + kSamples * sampling.max_new_tokens;
    const std::int64_t layers = config.layers - config.experts.first_dense;
    for (const std::int64_t ranks : {2, 4}) {
        const test::MeshCase c{{.data = narrow<int>(ranks), .expert = narrow<int>(ranks)}};
        parallel::ThreadWorld world(narrow<int>(ranks));
        world.run([&](parallel::Communicator& communicator) {
            test::MeshRank rank(c, config, communicator);
            LocalWork work(requests);
            (void)rank.generator.run(requests, sampling, work, 5, {});
        });
        const std::int64_t others = ranks - 1;
        const std::int64_t moved = others * rows * config.experts.chosen * 2 * 4 * config.hidden;
        const std::int64_t passes = 1 + sampling.max_new_tokens;
        const std::int64_t counts = passes * ranks * others * 8 * config.experts.routed;
        const std::int64_t turns = sampling.max_new_tokens + 1;  // the last finds nothing to do
        EXPECT_EQ(test::sent(world, {.over = "expert"}).bytes,
                  layers * (moved + counts) + turns * ranks * others * 32);
    }
}

/// Bytes of all parameters that generation reads; of its layers alone.
struct WeightBytes {
    explicit WeightBytes(const model::ModelConfig& config) {
        const model::DecoderParameters parameters = model::decoder_parameters(config);
        for (ParameterId id = 0; id < parameters.table.count(); ++id) {
            const std::int64_t bytes = 4 * parameters.table[id].shape.size();
            all += bytes;
            if (parameters.table[id].layer >= 0) layers += bytes;
        }
    }
    std::int64_t all = 0, layers = 0;
};

TEST(GenerationTraffic, WeightsThatAreSharedOutTravelOnceAPhaseOrLayersOnceAPass) {
    for (const model::ModelConfig& config :
         {roomy(model::Family::llama), roomy(model::Family::qwen2),
          test::in_bf16(roomy(model::Family::llama)), roomy(model::Family::deepseek_v3)}) {
        const WeightBytes weights(config);
        const auto requests = test::requests_of({6, 40}, 1, config.vocab_size);
        const SamplingOptions sampling{.max_new_tokens = 6, .seed = 4};
        const std::int64_t prompt_passes = ceil_div(5 + 39, 16);
        const std::int64_t passes = prompt_passes + sampling.max_new_tokens;
        for (const int ranks : {2, 3}) {
            for (const bool stream : {false, true}) {
                SCOPED_TRACE(fmt::format("{} on {} ranks, streamed {}", name_of(config.family),
                                         ranks, stream));
                const test::MeshCase c{{.data = ranks}, true, stream};
                parallel::ThreadWorld world(ranks);
                world.run([&](parallel::Communicator& communicator) {
                    test::MeshRank rank(c, config, communicator);
                    LocalWork work(requests);
                    (void)rank.generator.run(requests, sampling, work, 5, {});
                });
                const std::int64_t once = stream ? weights.all - weights.layers : weights.all;
                const std::int64_t again = stream ? passes * weights.layers : 0;
                EXPECT_EQ(test::sent(world, {.over = "data", .kinds = {"weights"}}).bytes,
                          (ranks - 1) * (once + again));
                const std::int64_t turns = sampling.max_new_tokens + 1;
                EXPECT_EQ(test::sent(world, {.over = "data", .kinds = {"generation"}}).bytes,
                          stream ? turns * ranks * (ranks - 1) * 32 : 0);
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::rollout
