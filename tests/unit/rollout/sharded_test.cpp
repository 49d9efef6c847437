// Generation with weights whose rows are shared out over data ranks: the answers of one rank.
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

/// Answers of all ranks together, in canonical order.
std::vector<Trajectory> generated_by_all(int ranks, const model::ModelConfig& config,
                                         std::span<const Request> requests,
                                         const SamplingOptions& sampling,
                                         const GeneratorOptions& options) {
    test::Together answers;
    parallel::ThreadWorld(ranks).run([&](parallel::Communicator& data) {
        test::SmallModel model(config, test::plain_device(), 1, 0.4, {.shards = &data});
        const auto dealing = data.split(0, data.rank(), "dealing");
        Generator generator(model.compute, model.weights, options, nullptr, config.vocab_size);
        for (int round = 0; round < 2; ++round) {
            DealtWork work(requests, *dealing, 2);
            const auto mine = generator.run(requests, sampling, work, 5, {});
            if (round > 0) answers.add(mine);  // a second run finds weights as the first left them
        }
    });
    return answers.all();
}

TEST(ShardedGeneration, AnswersAreThoseOfOneRankWhetherWeightsAreHeldOrStreamed) {
    for (model::ModelConfig config :
         {test::small_config(model::Family::llama), test::small_config(model::Family::qwen2),
          test::small_config(model::Family::deepseek_v3),
          test::in_bf16(test::small_config(model::Family::qwen2))}) {
        config.layers = 3;
        test::for_few_and_many_answers(
            config,
            [&](const auto& requests, const SamplingOptions& sampling, const auto& expected) {
                for (const int ranks : {2, 3}) {
                    for (const bool stream : {false, true}) {
                        test::expect_same(
                            generated_by_all(
                                ranks, config, requests, sampling,
                                {.slots = 2, .prefill_tokens = 16, .stream_weights = stream}),
                            expected);
                    }
                }
            });
    }
}

TEST(ShardedGeneration, PipelinesStreamTooAlsoWhereSomeRanksHaveNothingToGenerate) {
    for (model::ModelConfig config :
         {test::small_config(model::Family::llama), test::small_config(model::Family::qwen2)}) {
        config.layers = 5;
        test::for_few_and_many_answers(
            config,
            [&](const auto& requests, const SamplingOptions& sampling, const auto& expected) {
                for (const test::MeshCase& c :
                     {test::MeshCase{{.data = 2, .pipeline = 2}, true, true},
                      test::MeshCase{{.data = 3, .pipeline = 2}, true, true, 0, 2},
                      test::MeshCase{{.data = 2, .pipeline = 3, .tensor = 2}, true, true}}) {
                    SCOPED_TRACE(to_string(c));
                    test::expect_same(test::generated_together(c, config, requests, sampling),
                                      expected);
                }
            });
    }
}

}  // namespace
}  // namespace rankwise::rollout
