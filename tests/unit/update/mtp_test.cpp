// Updates with a module that predicts one token further: the bits of one rank on every mesh, and
// what changes where it is trained.
#include "tests/unit/io/scratch.hpp"
#include "tests/unit/update/updates_on.hpp"

namespace rankwise::update {
namespace {

using namespace test_updates;
using parallel::Schedule;

model::ModelConfig model_with_module(bool tied) {
    model::ModelConfig config = config_of(model::Family::deepseek_v3, 4);
    config.experts.first_dense = 1;
    config.extra_layers = 1;
    config.tied = tied;
    return config;
}

constexpr auto kInTurn = Schedule::one_forward_one_backward;

/// Every axis by itself and with others, and waves of which some data ranks have no chunk.
std::vector<Layout> module_layouts() {
    return {
        {{.data = 2}},
        {{.data = 3}, kInTurn, true, 0},
        {{.tensor = 2}},
        {{.tensor = 4}, kInTurn, true},
        {{.data = 2, .tensor = 2}, kInTurn, false, 0},
        {{.data = 2}, kInTurn, false, 3},
        {{.data = 3}, kInTurn, true, 3},
        {{.data = 2, .tensor = 2}, kInTurn, false, 3},
        {{.pipeline = 2}},
        {{.pipeline = 2}, Schedule::interleaved, true},
        {{.pipeline = 4}, Schedule::zero_bubble},
        {{.data = 3, .pipeline = 2}, Schedule::zero_bubble, true, 0},
        {{.data = 2, .pipeline = 2, .tensor = 2}, Schedule::interleaved},
        {{.data = 2, .pipeline = 2}, kInTurn, true, 3},
        {{.data = 3, .pipeline = 3}, Schedule::zero_bubble, false, 3},
        {{.tensor = 2, .expert = 2}},
        {{.data = 2, .expert = 2}},
        {{.data = 3, .expert = 3}, kInTurn, true, 0},
        {{.data = 2, .tensor = 2, .expert = 4}, kInTurn, false, 1, 5},
        {{.data = 4, .expert = 2}, kInTurn, false, 3},
        {{.data = 4, .expert = 4}, kInTurn, true, 3, 7},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 2}, Schedule::zero_bubble, true},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 2}, Schedule::interleaved, false, 3},
    };
}

Result alone_with(const model::ModelConfig& config, bool mtp) {
    test::SmallModel alone(config);
    return updates(alone.compute, alone.weights, *alone.self,
                   {.head = {.ids = config.vocab_size}, .mtp = mtp});
}

TEST(TrainedModule, UpdatesAreThoseOfOneRankOnEveryMesh) {
    for (const bool tied : {false, true}) {
        const model::ModelConfig config = model_with_module(tied);
        const Result expected = alone_with(config, true);
        for (Layout layout : module_layouts()) {
            layout.mtp = true;
            const std::string name = fmt::format(
                "{}, {}, zero {}, rounds of {}, tied {}", to_string(layout.shape),
                parallel::name_of(layout.schedule), layout.zero, layout.expert_rows, tied);
            parallel::ThreadWorld world(narrow<int>(layout.shape.ranks()));
            world.run([&](parallel::Communicator& axis) {
                EXPECT_EQ(updates_on(axis, config, layout), expected) << name;
            });
        }
    }
}

TEST(TrainedModule, EveryParameterOfItChangesAndNoneWhereItIsNotTrained) {
    const model::ModelConfig config = model_with_module(false);
    test::SmallModel before(config);
    const std::vector<UInt128> was = before.weights.digests(before.compute);
    const std::vector<UInt128> without = alone_with(config, false).digests;
    const std::vector<UInt128> with = alone_with(config, true).digests;
    const ParameterTable& table = before.weights.table();
    for (ParameterId id = 0; id < table.count(); ++id) {
        const auto at = static_cast<std::size_t>(id);
        const bool of_module = table[id].name.starts_with("model.layers.4.");
        EXPECT_EQ(without[at] == was[at], of_module) << table[id].name;
        EXPECT_NE(with[at], was[at]) << table[id].name;
        if (of_module || !table[id].trained) continue;
        EXPECT_NE(with[at], without[at]) << table[id].name << " feels its loss";
    }
}

TEST(TrainedModule, ItsCopiesFollowEmbeddingAndHead) {
    test::SmallModel model(model_with_module(false));
    (void)updates(model.compute, model.weights, *model.self,
                  {.head = {.ids = model.config.vocab_size}, .mtp = true});
    const model::DecoderParameters& parameters = model.weights.parameters();
    const model::MtpIds& module = parameters.mtp.front();
    EXPECT_EQ(model.values(module.embedding_copy), model.values(parameters.embedding));
    EXPECT_EQ(model.values(module.head_copy), model.values(parameters.head));
    EXPECT_FALSE(model.weights.uses_mtp()) << "its copies are given back with the trainer";
}

TEST(TrainedModule, ExportAndImportGiveTheTrainedWeightsBack) {
    test::SmallModel model(model_with_module(false));
    (void)updates(model.compute, model.weights, *model.self,
                  {.head = {.ids = model.config.vocab_size}, .mtp = true});
    const io::test::Scratch scratch;
    const auto fs = io::posix_file_system();
    model::export_folder(model.weights, *fs, scratch.path(), model.compute);
    test::SmallModel loaded(model::read_config(scratch.path()), test::plain_device(), 2);
    model::load_folder(loaded.weights, scratch.path(), loaded.compute);
    EXPECT_EQ(loaded.weights.digests(loaded.compute), model.weights.digests(model.compute));
    EXPECT_EQ(loaded.values(loaded.weights.mtp_ids().projection),
              model.values(model.weights.mtp_ids().projection));
}

}  // namespace
}  // namespace rankwise::update
