// Generation with weights whose rows are shared out over data ranks: the answers of one rank.
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

/// Answers of all ranks together, in canonical order.
std::vector<Trajectory> generated_by_all(int ranks, const model::ModelConfig& config,
                                         std::span<const Request> requests,
                                         const SamplingOptions& sampling,
                                         const GeneratorOptions& options) {
    std::vector<Trajectory> all;
    std::mutex mutex;
    parallel::ThreadWorld(ranks).run([&](parallel::Communicator& data) {
        test::SmallModel model(config, test::plain_device(), 1, 0.4, {.shards = &data});
        const auto dealing = data.split(0, data.rank(), "dealing");
        Generator generator(model.compute, model.weights, options, nullptr, config.vocab_size);
        for (int round = 0; round < 2; ++round) {
            DealtWork work(requests, *dealing, 2);
            const auto mine = generator.run(requests, sampling, work, 5, {});
            if (round == 0) continue;  // a second run finds weights as the first left them
            const std::lock_guard lock(mutex);
            all.insert(all.end(), mine.begin(), mine.end());
        }
    });
    std::ranges::sort(all, [](const Trajectory& a, const Trajectory& b) {
        return std::pair(a.group, a.sample) < std::pair(b.group, b.sample);
    });
    return all;
}

TEST(ShardedGeneration, AnswersAreThoseOfOneRankWhetherWeightsAreHeldOrStreamed) {
    for (model::ModelConfig config :
         {test::small_config(model::Family::llama), test::small_config(model::Family::qwen2),
          test::small_config(model::Family::deepseek_v3),
          test::in_bf16(test::small_config(model::Family::qwen2))}) {
        config.layers = 3;
        // Fewer answers than ranks, and more than slots; a prompt of several passes.
        for (const std::vector<std::int64_t>& lengths :
             {std::vector<std::int64_t>{3}, std::vector<std::int64_t>{3, 70, 1, 20, 5}}) {
            const auto requests = test::requests_of(lengths, lengths.size() == 1 ? 1 : 3);
            const SamplingOptions sampling{
                .temperature = 0.8, .max_new_tokens = 12, .stop_ids = {0}, .seed = 4};
            test::SmallModel alone(config);
            const auto expected = test::generate(alone, requests, sampling);
            for (const int ranks : {2, 3}) {
                for (const bool stream : {false, true}) {
                    const auto answers = generated_by_all(
                        ranks, config, requests, sampling,
                        {.slots = 2, .prefill_tokens = 16, .stream_weights = stream});
                    ASSERT_EQ(answers.size(), expected.size());
                    for (std::size_t i = 0; i < answers.size(); ++i) {
                        EXPECT_EQ(answers[i].tokens, expected[i].tokens);
                        EXPECT_EQ(answers[i].logprobs, expected[i].logprobs);
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::rollout
