// Generation with routed experts that are shared out over ranks: the answers of one rank, whatever
// the others have to do.
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

using test::MeshCase;

/// Over tensor ranks, data ranks, both; beside others that have the same experts; in few rows a
/// round; with weights whose rows are shared out too, held or streamed; in a pipeline.
std::vector<MeshCase> expert_cases() {
    return {{{.tensor = 2, .expert = 2}},
            {{.tensor = 4, .expert = 2}},
            {{.data = 2, .tensor = 4, .expert = 2}, true, false, 2},
            {{.data = 2, .expert = 2}},
            {{.data = 3, .expert = 3}, false, false, 2},
            {{.data = 2, .tensor = 2, .expert = 4}},
            {{.data = 4, .expert = 2}, false, false, 1},
            {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 2}},
            {{.data = 2, .expert = 2}, true},
            {{.data = 4, .expert = 2}, true, true},
            {{.data = 2, .pipeline = 2, .expert = 2}},
            {{.data = 3, .pipeline = 2, .expert = 3}, false, false, 2, 2},
            {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 4}, false, false, 3, 2},
            {{.data = 4, .pipeline = 2, .expert = 2}, true},
            {{.data = 2, .pipeline = 3, .expert = 2}, true, true},
            {{.data = 2, .pipeline = 2, .expert = 2}, true, true, 1, 2}};
}

model::ModelConfig config_with_experts() {
    model::ModelConfig config = test::small_config(model::Family::deepseek_v3);
    config.layers = 5;
    return config;
}

TEST(ExpertGeneration, AnswersAreThoseOfOneRankAlsoWhereSomeRanksHaveNothingToGenerate) {
    const model::ModelConfig config = config_with_experts();
    test::for_few_and_many_answers(
        config, [&](const auto& requests, const SamplingOptions& sampling, const auto& expected) {
            for (const MeshCase& c : expert_cases()) {
                SCOPED_TRACE(to_string(c));
                test::expect_same(test::generated_together(c, config, requests, sampling),
                                  expected);
            }
        });
}

TEST(ExpertGeneration, AStopOnOneDataRankStopsThoseThatGoWithItAndLeavesNothingOnItsWay) {
    const model::ModelConfig config = config_with_experts();
    const auto requests = test::requests_of({3, 40, 9}, 3);
    const SamplingOptions sampling{.max_new_tokens = 8, .seed = 4};
    test::SmallModel alone(config);
    const auto expected = test::generate(alone, requests, sampling);
    for (const MeshCase& c :
         {MeshCase{{.data = 2, .expert = 2}}, MeshCase{{.data = 2, .pipeline = 2, .expert = 2}},
          MeshCase{{.data = 2, .pipeline = 2, .expert = 2}, false, false, 0, 2},
          MeshCase{{.data = 2, .pipeline = 2}, true, true}}) {
        SCOPED_TRACE(to_string(c));
        const auto stop_some = [&](test::MeshRank& rank) {
            for (int most = 0; most < 5; ++most) {
                int asked = 0;
                const auto stop = [&] {
                    return rank.mesh.coordinates().data == 1 && asked++ == most;
                };
                LocalWork work(requests);  // nobody is left waiting for a deal
                (void)rank.generator.run(requests, sampling, work, 5,
                                         {.finished = {}, .token = {}, .stop = stop});
                EXPECT_EQ(rank.generator.pages_in_use(), 0);
            }
        };
        test::expect_same(test::generated_together(c, config, requests, sampling, stop_some),
                          expected);
    }
}

}  // namespace
}  // namespace rankwise::rollout
