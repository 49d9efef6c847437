// Routed experts that are shared out over ranks: held once, saved whole.
#include <gtest/gtest.h>

#include "parallel/mesh.hpp"
#include "parallel/thread_world.hpp"
#include "tests/support/small_model.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::model {
namespace {

constexpr parallel::MeshShape kExpertShapes[] = {{.tensor = 2, .expert = 2},
                                                 {.data = 2, .expert = 2},
                                                 {.data = 3, .expert = 3},
                                                 {.data = 2, .tensor = 2, .expert = 2},
                                                 {.data = 2, .tensor = 2, .expert = 4},
                                                 {.tensor = 4, .expert = 2},
                                                 {.data = 2, .tensor = 4, .expert = 2},
                                                 {.data = 4, .expert = 2}};

ModelConfig model_with_experts() {
    ModelConfig config = test::small_config(Family::deepseek_v3);
    config.layers = 3;
    config.extra_layers = 1;
    return config;
}

void on_every_mesh(const std::function<void(test::SmallModel&, parallel::Mesh&)>& body) {
    for (const parallel::MeshShape& shape : kExpertShapes) {
        for (const bool sharded : {false, true}) {
            SCOPED_TRACE(fmt::format("{}, sharded {}", to_string(shape), sharded));
            if (sharded && shape.data == 1) continue;
            parallel::ThreadWorld(narrow<int>(shape.ranks()))
                .run([&](parallel::Communicator& world) {
                    parallel::Mesh mesh(world, shape);
                    test::SmallModel rank(
                        model_with_experts(), test::plain_device(), 1, 0.4,
                        {.tensor = shape.tensor > 1 ? &mesh.axis(parallel::Axis::tensor) : nullptr,
                         .shards = sharded ? &mesh.weights() : nullptr,
                         .experts = {.axis = &mesh.axis(parallel::Axis::expert),
                                     .data_rank = mesh.coordinates().data}});
                    body(rank, mesh);
                });
        }
    }
}

TEST(SharedOutExperts, EachIsHeldByOneRankOfItsGroupAndTheDigestIsThatOfOneRank) {
    test::SmallModel alone(model_with_experts());
    const std::vector<UInt128> expected = alone.weights.digests(alone.compute);
    on_every_mesh([&](test::SmallModel& rank, parallel::Mesh& mesh) {
        EXPECT_EQ(rank.weights.digests(rank.compute), expected);
        const parallel::MeshShape& shape = mesh.shape();
        const std::int64_t groups = shape.ranks() / shape.expert;
        for (ParameterId id = 0; id < rank.weights.table().count(); ++id) {
            if (rank.weights.table()[id].expert < 0 || rank.weights.table()[id].layer < 0) continue;
            const std::int64_t held =
                mesh.world().all_reduce_sum("sizes", rank.weights.box(id).size());
            const std::int64_t size = rank.weights.table()[id].shape.size();
            const std::int64_t shared_rows = rank.weights.sharded() ? shape.data : 1;
            EXPECT_EQ(held, std::max<std::int64_t>(1, groups / shared_rows) * size);
        }
    });
}

TEST(SharedOutExperts, ExportWritesAllOfThem) {
    test::SmallModel alone(model_with_experts());
    const std::vector<UInt128> expected = alone.weights.digests(alone.compute);
    const io::test::Scratch scratch;
    on_every_mesh([&](test::SmallModel& rank, parallel::Mesh& mesh) {
        const auto folder =
            scratch / fmt::format("{} {}", to_string(mesh.shape()), rank.weights.sharded());
        const auto fs = io::posix_file_system();
        if (rank.weights.shared_by_data() || mesh.coordinates().data == 0)
            export_folder(rank.weights, *fs, folder, rank.compute);
        mesh.world().barrier("written");
        if (mesh.world().rank() > 0) return;
        test::SmallModel loaded(read_config(folder), test::plain_device(), 2);
        load_folder(loaded.weights, folder, loaded.compute);
        EXPECT_EQ(loaded.weights.digests(loaded.compute), expected);
    });
}

TEST(SharedOutExperts, DegreesDivideTheTensorRanksOrAreThoseOfOneOrSeveralDataRanks) {
    using Degrees = std::vector<int>;
    ModelConfig model = model_with_experts();  // 8 experts
    EXPECT_EQ(expert_degrees(model, {.data = 6}), (Degrees{1, 2, 3, 6}));
    EXPECT_EQ(expert_degrees(model, {.data = 4, .tensor = 2}), (Degrees{1, 2, 4, 8}));
    EXPECT_EQ(expert_degrees(model, {.data = 8, .tensor = 2}), (Degrees{1, 2, 4, 8}));
    EXPECT_EQ(expert_degrees(model, {.data = 2, .tensor = 4}), (Degrees{1, 2, 4, 8}));
    EXPECT_EQ(expert_degrees(model, {.data = 1, .tensor = 6}), (Degrees{1, 2, 3, 6}));
    EXPECT_EQ(expert_degrees(model, {.data = 3, .tensor = 2}), (Degrees{1, 2, 6}));
    EXPECT_EQ(expert_degrees(model, {.data = 4, .pipeline = 2, .tensor = 2}),
              (Degrees{1, 2, 4, 8}));
    model.experts = {};
    EXPECT_EQ(expert_degrees(model, {.data = 4, .tensor = 2}), (Degrees{1}));
}

}  // namespace
}  // namespace rankwise::model
