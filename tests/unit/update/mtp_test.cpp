// Updates with a module that predicts one token further: the bits of one rank on every mesh, and
// what changes where it is trained.
#include <set>

#include "kernels/plan_device.hpp"
#include "parallel/mirror_communicator.hpp"
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
        {{.pipeline = 2}, Schedule::interleaved, model::kAllLayers},
        {{.pipeline = 4}, Schedule::zero_bubble},
        {{.data = 3, .pipeline = 2}, Schedule::zero_bubble, model::kAllLayers, 0},
        {{.data = 2, .pipeline = 2, .tensor = 2}, Schedule::interleaved},
        {{.data = 2, .pipeline = 2}, kInTurn, true, 3},
        {{.data = 3, .pipeline = 3}, Schedule::zero_bubble, false, 3},
        {{.tensor = 2, .expert = 2}},
        {{.tensor = 4, .expert = 2}, kInTurn, true},
        {{.data = 2, .expert = 2}},
        {{.data = 3, .expert = 3}, kInTurn, true, 0},
        {{.data = 2, .tensor = 2, .expert = 4}, kInTurn, false, 1, 5},
        {{.data = 4, .expert = 2}, kInTurn, false, 3},
        {{.data = 4, .expert = 4}, kInTurn, true, 3, 7},
        {{.data = 2, .pipeline = 2, .tensor = 2, .expert = 2},
         Schedule::zero_bubble,
         model::kAllLayers},
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

/// Streams there and their gradients back, as without a module; the embedding for its copy, once
/// before the first step and after each; the sums of gradients of the rows that it looks up.
TEST(TrainedModule, BytesSentInAPipelineAreThoseOfTheFormula) {
    const Data texts;
    std::int64_t rows = 0;
    std::set<TokenId> ids;
    for (std::size_t sample = 0; sample < texts.sizes.size(); ++sample) {
        const auto group = static_cast<std::size_t>(texts.sizes[sample].group);
        std::vector<TokenId> tokens = texts.prompts[group];
        tokens.insert(tokens.end(), texts.answers[sample].begin(), texts.answers[sample].end());
        rows += std::ssize(tokens) - 1;
        ids.insert(tokens.begin() + 1, tokens.end());
    }
    const model::ModelConfig config = model_with_module(false);
    Layout layout{{.pipeline = 2}};
    layout.mtp = true;
    parallel::ThreadWorld world(2);
    world.run([&](parallel::Communicator& axis) { (void)updates_on(axis, config, layout); });
    std::int64_t sent = 0;
    for (int rank = 0; rank < 2; ++rank) {
        for (const auto& row : world.instruments(rank).traffic->rows()) {
            if (row.op == parallel::Op::send) sent += row.bytes;
        }
    }
    const std::int64_t copy = 4 * config.vocab_size * config.hidden;
    const std::int64_t step =
        2 * 4 * rows * config.hidden + copy + 8 + 4 * std::ssize(ids) * (config.hidden + 1);
    EXPECT_EQ(sent, copy + 2 * step);
}

TEST(TrainedModule, WhatARankPlansIsTheMemoryThatItTakes) {
    for (const auto& shape : {parallel::MeshShape{}, parallel::MeshShape{.pipeline = 2}}) {
        for (const std::int64_t recompute : {std::int64_t{0}, model::kAllLayers}) {
            parallel::ThreadWorld world(narrow<int>(shape.ranks()));
            world.run([&](parallel::Communicator& axis) {
                test::DeviceUnderTest device(test::plain_device());
                kernels::PlanDevice plan(*device);
                parallel::Mesh mesh(axis, shape);
                const auto mirror =
                    parallel::make_mirror_world(shape, axis.rank(), kernels::PlanDevice::owns);
                parallel::Mesh mirrored(*mirror, shape);
                const auto peaks = [&](kernels::Device& on, parallel::Mesh& over) {
                    const auto stream = on.make_stream();
                    kernels::Arena arena(on);
                    model::Compute compute{on, *stream, arena};
                    model::Weights weights(on, model_with_module(false),
                                           model::Passes::forward_and_backward,
                                           {.pipeline = model::pipeline_axis(over, kInTurn)});
                    model::initialise(weights, {}, 1, compute);
                    (void)updates(
                        compute, weights, over.axis(parallel::Axis::data),
                        {.head = {.ids = kVocabulary}, .recompute = recompute, .mtp = true});
                    return std::pair(arena.peak_bytes(), arena.peak_bytes_beside());
                };
                EXPECT_EQ(peaks(plan, mirrored), peaks(*device, mesh))
                    << to_string(shape) << ", recompute " << recompute;
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
