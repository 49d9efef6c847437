// Tensor ranks generate together: the tokens and log-probabilities of one rank.
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

using test::expect_same;
using test::SlowWork;

struct TensorCase {
    model::ModelConfig config;
    int ranks;
};

/// Uneven parts of the vocabulary, one of them empty (37 ids in 4 leaves); KV heads held twice;
/// experts, also of fewer rows than ranks.
std::vector<TensorCase> cases() {
    model::ModelConfig odd = test::small_config();
    odd.heads = 9;
    odd.kv_heads = 3;
    odd.vocab_size = 150;
    return {{test::small_config(), 2},
            {test::small_config(), 4},
            {odd, 3},
            {odd, 9},
            {test::small_config(model::Family::deepseek_v3), 2},
            {test::small_config(model::Family::deepseek_v2), 4},
            {test::in_bf16(odd), 9}};
}

TEST(TensorGeneration, AnswersAreThoseOfOneRankWithAndWithoutFiltersAndGreedily) {
    for (const auto& [config, ranks] : cases()) {
        const auto requests = test::requests_of({3, 70, 1, 20}, 3, config.vocab_size);
        for (const SamplingOptions& sampling :
             {SamplingOptions{.temperature = 0.8, .max_new_tokens = 12, .stop_ids = {0}, .seed = 4},
              SamplingOptions{.top_p = 0.9, .max_new_tokens = 6, .seed = 5},
              SamplingOptions{.top_k = 5, .min_p = 0.1, .max_new_tokens = 6, .seed = 6},
              SamplingOptions{.temperature = 0.0, .max_new_tokens = 6}}) {
            test::SmallModel alone(config);
            const auto expected = test::generate(alone, requests, sampling);
            parallel::ThreadWorld(ranks).run([&](parallel::Communicator& axis) {
                test::SmallModel model(config, test::plain_device(), 1, 0.4, {.tensor = &axis});
                expect_same(test::generate(model, requests, sampling, {.slots = 5}), expected);
            });
        }
    }
}

TEST(TensorGeneration, OneRankOfAGroupAsksForWorkAndAllStartTheSame) {
    const auto requests = test::requests_of({3, 9}, 4);
    const SamplingOptions sampling{.max_new_tokens = 8, .seed = 4};
    test::SmallModel alone(test::small_config());
    const auto expected = test::generate(alone, requests, sampling);
    parallel::ThreadWorld(2).run([&](parallel::Communicator& axis) {
        test::SmallModel model(test::small_config(), test::plain_device(), 1, 0.4,
                               {.tensor = &axis});
        Generator generator(model.compute, model.weights, {.slots = 3}, nullptr, 37);
        SlowWork slow(requests, axis.rank() == 0);
        GroupWork work(slow, axis);
        expect_same(generator.run(requests, sampling, work, 5, {}), expected);
    });
}

}  // namespace
}  // namespace rankwise::rollout
