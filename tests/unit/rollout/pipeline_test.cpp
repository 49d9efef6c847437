// Pipeline ranks generate together, several groups of slots in flight: the tokens and
// log-probabilities of one rank.
#include "parallel/mesh.hpp"
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

using test::expect_same;
using test::SlowWork;

struct Case {
    int pipeline;
    int tensor;
    int virtual_stages;
};

constexpr Case kCases[] = {{2, 1, 1}, {3, 1, 1}, {4, 1, 1}, {2, 1, 2},
                           {3, 1, 2}, {2, 2, 1}, {2, 2, 2}};

model::ModelConfig config_of(model::Family family) {
    model::ModelConfig config = test::small_config(family);
    config.layers = 7;
    return config;
}

/// Runs `body` on the ranks of a case, each with its part of the model.
void on_ranks(const Case& c, const model::ModelConfig& config,
              const std::function<void(test::SmallModel&, parallel::Mesh&)>& body) {
    SCOPED_TRACE(fmt::format("{} pipeline x {} tensor ranks, {} virtual stages", c.pipeline,
                             c.tensor, c.virtual_stages));
    parallel::ThreadWorld(c.pipeline * c.tensor).run([&](parallel::Communicator& world) {
        parallel::Mesh mesh(world, {.pipeline = c.pipeline, .tensor = c.tensor});
        parallel::Communicator* const tensor =
            c.tensor > 1 ? &mesh.axis(parallel::Axis::tensor) : nullptr;
        test::SmallModel model(
            config, test::plain_device(), 1, 0.4,
            {.tensor = tensor,
             .pipeline = {&mesh.axis(parallel::Axis::pipeline), c.virtual_stages}});
        body(model, mesh);
    });
}

TEST(PipelineGeneration, AnswersOnEveryRankAreThoseOfOneRank) {
    for (const model::ModelConfig& config :
         {config_of(model::Family::llama), config_of(model::Family::qwen2),
          config_of(model::Family::deepseek_v3), test::in_bf16(config_of(model::Family::qwen2))}) {
        const auto requests = test::requests_of({3, 70, 1, 20}, 3, config.vocab_size);
        for (const SamplingOptions& sampling :
             {SamplingOptions{.temperature = 0.8, .max_new_tokens = 12, .stop_ids = {0}, .seed = 4},
              SamplingOptions{.top_k = 5, .min_p = 0.1, .max_new_tokens = 6, .seed = 6}}) {
            test::SmallModel alone(config);
            const auto expected = test::generate(alone, requests, sampling);
            for (const Case& c : kCases) {
                on_ranks(c, config, [&](test::SmallModel& model, parallel::Mesh&) {
                    for (const GeneratorOptions& options :
                         {GeneratorOptions{.slots = 5}, GeneratorOptions{.slots = 1},
                          GeneratorOptions{.slots = 64, .prefill_tokens = 7}})
                        expect_same(test::generate(model, requests, sampling, options), expected);
                });
            }
        }
    }
}

TEST(PipelineGeneration, TheFirstRankAsksForWorkAndAllStartTheSame) {
    const model::ModelConfig config = config_of(model::Family::qwen2);
    const auto requests = test::requests_of({3, 9}, 4);
    const SamplingOptions sampling{.max_new_tokens = 8, .seed = 4};
    test::SmallModel alone(config);
    const auto expected = test::generate(alone, requests, sampling);
    for (const Case& c : kCases) {
        on_ranks(c, config, [&](test::SmallModel& model, parallel::Mesh& mesh) {
            Generator generator(model.compute, model.weights, {.slots = 3}, nullptr, 37);
            SlowWork slow(requests, mesh.world().rank() == 0);
            GroupWork work(slow, mesh.axis(parallel::Axis::tensor),
                           &mesh.axis(parallel::Axis::pipeline));
            expect_same(generator.run(requests, sampling, work, 5, {}), expected);
            EXPECT_EQ(generator.pages_in_use(), 0);
        });
    }
}

TEST(PipelineGeneration, AStopInTheMiddleLeavesNothingOnItsWay) {
    const model::ModelConfig config = config_of(model::Family::qwen2);
    const auto requests = test::requests_of({3, 9}, 4);
    const SamplingOptions sampling{.max_new_tokens = 8, .seed = 4};
    test::SmallModel alone(config);
    const auto expected = test::generate(alone, requests, sampling);
    for (const Case& c : kCases) {
        on_ranks(c, config, [&](test::SmallModel& model, parallel::Mesh&) {
            Generator generator(model.compute, model.weights, {.slots = 6}, nullptr, 37);
            for (int most = 0; most < 6; ++most) {
                LocalWork some(requests);
                int asked = 0;
                (void)generator.run(
                    requests, sampling, some, 5,
                    {.finished = {}, .token = {}, .stop = [&] { return asked++ == most; }});
                EXPECT_EQ(generator.pages_in_use(), 0);
            }
            LocalWork work(requests);
            expect_same(generator.run(requests, sampling, work, 5, {}), expected);
        });
    }
}

}  // namespace
}  // namespace rankwise::rollout
