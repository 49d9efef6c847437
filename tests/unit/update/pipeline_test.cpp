// Updates over pipeline ranks, with data and tensor ranks: the bits of one rank under every
// schedule, and what travels.
#include <set>

#include "kernels/plan_device.hpp"
#include "parallel/mirror_communicator.hpp"
#include "tests/unit/update/updates_on.hpp"

namespace rankwise::update {
namespace {

using namespace test_updates;
using model::ModelConfig;
using parallel::Axis;
using parallel::Communicator;
using parallel::Schedule;

/// On every family: all axes at once, and more stages. The rest once.
std::vector<Layout> layouts(bool all_of_them) {
    std::vector<Layout> all{{.shape = {}, .logits = model::LogitsUse::recompute},
                            {.shape = {.data = 2, .pipeline = 2, .tensor = 2},
                             .schedule = Schedule::zero_bubble,
                             .logits = model::LogitsUse::recompute}};
    for (const Schedule schedule :
         {Schedule::one_forward_one_backward, Schedule::interleaved, Schedule::zero_bubble}) {
        all.push_back({{.pipeline = 3}, schedule});
        all.push_back({{.data = 2, .pipeline = 2, .tensor = 2}, schedule, true});
        all.push_back({{.data = 2, .pipeline = 2}, schedule, true, 3});
        if (!all_of_them) continue;
        all.push_back({{.data = 2}, schedule});
        all.push_back({{.data = 2, .pipeline = 2}, schedule});
        all.push_back({{.pipeline = 2}, schedule});
        all.push_back({{.pipeline = 4}, schedule, true});
        all.push_back({{.data = 3, .pipeline = 2}, schedule, true, 0});
        all.push_back({{.pipeline = 2, .tensor = 2}, schedule});
        all.push_back({{.data = 3}, schedule, false, 3});
        all.push_back({{.data = 3, .pipeline = 3}, schedule, false, 3});
        all.push_back({{.data = 2, .tensor = 2}, schedule, false, 3});
    }
    return all;
}

TEST(PipelineUpdate, EveryScheduleOnEveryMeshGivesTheWeightsAndNormsOfOneRank) {
    for (const ModelConfig& config :
         {config_of(model::Family::llama, 8), config_of(model::Family::qwen2, 8),
          config_of(model::Family::qwen3, 8), config_of(model::Family::deepseek_v2, 8),
          config_of(model::Family::deepseek_v3, 8),
          test::in_bf16(config_of(model::Family::llama, 8))}) {
        test::SmallModel alone(config);
        const Result expected = updates(alone.compute, alone.weights, *alone.self,
                                        {.head = {.ids = config.vocab_size}});
        for (const Layout& layout : layouts(config.tied)) {
            SCOPED_TRACE(fmt::format("{} in {}, {}, {}", name_of(config.family),
                                     name_of(config.dtype), to_string(layout.shape),
                                     parallel::name_of(layout.schedule)));
            parallel::ThreadWorld world(narrow<int>(layout.shape.ranks()));
            world.run(
                [&](Communicator& axis) { EXPECT_EQ(updates_on(axis, config, layout), expected); });
        }
    }
}

/// Scratch memory at its most, and beside it what passes in flight keep.
using Peaks = std::pair<std::int64_t, std::int64_t>;

Peaks peaks_of(kernels::Device& device, parallel::Mesh& mesh, const ModelConfig& config,
               const Layout& layout) {
    const auto stream = device.make_stream();
    kernels::Arena arena(device);
    model::Compute compute{device, *stream, arena};
    model::Weights weights(device, config, model::Passes::forward_and_backward,
                           {.pipeline = model::pipeline_axis(mesh, layout.schedule)});
    model::initialise(weights, {}, 1, compute);
    (void)updates(compute, weights, mesh.axis(Axis::data),
                  {.head = {.ids = config.vocab_size},
                   .recompute = layout.recompute,
                   .schedule = layout.schedule});
    return {arena.peak_bytes(), arena.peak_bytes_beside()};
}

TEST(PipelineUpdate, WhatARankPlansOverAMirrorOfTheOthersIsTheMemoryThatItTakes) {
    for (const model::Family family : {model::Family::qwen2, model::Family::deepseek_v3}) {
        const ModelConfig config = config_of(family, 8);
        for (const Schedule schedule :
             {Schedule::one_forward_one_backward, Schedule::interleaved, Schedule::zero_bubble}) {
            for (const std::int64_t recompute :
                 {std::int64_t{0}, std::int64_t{1}, model::kAllLayers}) {
                const Layout layout{{.pipeline = 3}, schedule, recompute};
                SCOPED_TRACE(fmt::format("{}, {}, recompute {}", name_of(family),
                                         parallel::name_of(schedule), recompute));
                parallel::ThreadWorld world(3);
                world.run([&](Communicator& axis) {
                    test::DeviceUnderTest device(test::plain_device());
                    kernels::PlanDevice plan(*device);
                    parallel::Mesh mesh(axis, layout.shape);
                    const auto mirror = parallel::make_mirror_world(layout.shape, axis.rank(),
                                                                    kernels::PlanDevice::owns);
                    parallel::Mesh mirrored(*mirror, layout.shape);
                    const Peaks taken = peaks_of(*device, mesh, config, layout);
                    const Peaks planned = peaks_of(plan, mirrored, config, layout);
                    EXPECT_EQ(planned.second, taken.second);
                    EXPECT_EQ(planned.first, taken.first);
                    EXPECT_GT(taken.second, 0);
                });
            }
        }
    }
}

/// (stages - 1) streams there and as many gradients back; rows of a tied embedding there, and the
/// sums of those that occur back once a step.
TEST(PipelineUpdate, BytesSentAreThoseOfTheFormula) {
    std::int64_t rows = 0;
    std::set<TokenId> ids;
    for (const model::Microbatch& batch : batches_of(plan_minibatch(Data().sizes, kPlan))) {
        rows += batch.rows();
        ids.insert(batch.ids.begin(), batch.ids.end());
    }
    ModelConfig apart = config_of(model::Family::llama, 8);
    ModelConfig tied = apart;
    tied.tied = true;
    for (const ModelConfig& config : {apart, tied, test::in_bf16(apart), test::in_bf16(tied)}) {
        for (const int ranks : {2, 4}) {
            for (const Schedule schedule : {Schedule::one_forward_one_backward,
                                            Schedule::interleaved, Schedule::zero_bubble}) {
                parallel::ThreadWorld world(ranks);
                world.run([&](Communicator& axis) {
                    (void)updates_on(axis, config, {{.pipeline = ranks}, schedule});
                });
                std::int64_t sent = 0;
                for (int rank = 0; rank < ranks; ++rank) {
                    for (const auto& row : world.instruments(rank).traffic->rows()) {
                        if (row.op == parallel::Op::send) sent += row.bytes;
                    }
                }
                const std::int64_t stages =
                    std::int64_t{ranks} * parallel::virtual_stages_of(schedule);
                const std::int64_t stream = size_of(config.dtype) * rows * config.hidden;
                std::int64_t expected = 2 * (stages - 1) * stream;
                if (config.tied) {
                    expected += stream;
                    expected += 4 * std::ssize(ids) * (config.hidden + 1) + 8;
                }
                EXPECT_EQ(sent, 2 * expected)  // two updates
                    << parallel::name_of(schedule) << ", " << ranks << " ranks, tied "
                    << config.tied << ", " << name_of(config.dtype);
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::update
