// Generation with routed experts that are shared out over ranks: the answers of one rank, whatever
// the others have to do.
#include "parallel/mesh.hpp"
#include "tests/unit/rollout/generate.hpp"

namespace rankwise::rollout {
namespace {

struct ExpertCase {
    parallel::MeshShape shape;
    bool sharded = false;  ///< zero = 3
    bool stream = false;
    std::int64_t rows = 0;
};

/// Over tensor ranks, data ranks, both; beside others that have the same experts; in few rows a
/// round; with weights whose rows are shared out too, held or streamed.
std::vector<ExpertCase> expert_cases() {
    return {{{.tensor = 2, .expert = 2}},
            {{.data = 2, .expert = 2}},
            {{.data = 3, .expert = 3}, false, false, 2},
            {{.data = 2, .tensor = 2, .expert = 4}},
            {{.data = 4, .expert = 2}, false, false, 1},
            {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 2}},
            {{.data = 2, .expert = 2}, true},
            {{.data = 4, .expert = 2}, true, true}};
}

/// Answers of all data ranks together, in canonical order.
std::vector<Trajectory> generated_together(const ExpertCase& c, const model::ModelConfig& config,
                                           std::span<const Request> requests,
                                           const SamplingOptions& sampling) {
    test::Together answers;
    parallel::ThreadWorld(narrow<int>(c.shape.ranks())).run([&](parallel::Communicator& world) {
        parallel::Mesh mesh(world, c.shape);
        const auto several = [&](parallel::Axis axis) {
            return mesh.degree(axis) > 1 ? &mesh.axis(axis) : nullptr;
        };
        test::SmallModel model(config, test::plain_device(), 1, 0.4,
                               {.tensor = several(parallel::Axis::tensor),
                                .shards = c.sharded ? &mesh.weights() : nullptr,
                                .pipeline = {several(parallel::Axis::pipeline), 1},
                                .experts = {.axis = several(parallel::Axis::expert),
                                            .data_rank = mesh.coordinates().data,
                                            .rows = c.rows}});
        parallel::Communicator& data = mesh.axis(parallel::Axis::data);
        const auto dealing = data.split(0, data.rank(), "dealing");
        Generator generator(model.compute, model.weights,
                            {.slots = 2, .prefill_tokens = 16, .stream_weights = c.stream}, nullptr,
                            config.vocab_size);
        DealtWork dealt(requests, *dealing, 2);
        GroupWork work(dealt, mesh.axis(parallel::Axis::tensor), several(parallel::Axis::pipeline));
        const auto mine = generator.run(requests, sampling, work, 5, {});
        if (mesh.coordinates().tensor == 0 && mesh.coordinates().pipeline == 0) answers.add(mine);
    });
    return answers.all();
}

TEST(ExpertGeneration, AnswersAreThoseOfOneRankAlsoWhereSomeRanksHaveNothingToGenerate) {
    model::ModelConfig config = test::small_config(model::Family::deepseek_v3);
    config.layers = 3;
    test::for_few_and_many_answers(
        config, [&](const auto& requests, const SamplingOptions& sampling, const auto& expected) {
            for (const ExpertCase& c : expert_cases()) {
                SCOPED_TRACE(fmt::format("{}, sharded {}, streamed {}", to_string(c.shape),
                                         c.sharded, c.stream));
                test::expect_same(generated_together(c, config, requests, sampling), expected);
            }
        });
}

}  // namespace
}  // namespace rankwise::rollout
