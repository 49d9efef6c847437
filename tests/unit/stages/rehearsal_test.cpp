// The memory that a rehearsal on a device without arithmetic finds is what the real device takes,
// and what it counts as sent is what real ranks send.
#include <gtest/gtest.h>

#include "kernels/plan_device.hpp"
#include "parallel/mirror_communicator.hpp"
#include "src/stages/grpo.hpp"
#include "src/stages/reject.hpp"
#include "tests/unit/stages/toy_run.hpp"

namespace rankwise::stages {
namespace {

using test::ToyRun;

/// Scratch memory at its most, and what the stage holds when it is done.
struct Taken {
    std::int64_t scratch = 0;
    std::int64_t held = 0;
    std::int64_t sent = 0;  ///< over the data axis
    friend bool operator==(const Taken&, const Taken&) = default;
};

using Make = std::function<std::unique_ptr<Stage>(const Environment&)>;

Taken taken(const Environment& environment, const Make& make) {
    const auto stage = make(environment);
    parallel::Traffic& traffic = *environment.data().instruments().traffic;
    const std::int64_t before = traffic.bytes();
    stage->rehearse();
    return {environment.compute.arena.peak_bytes(), environment.compute.device.bytes_in_use(),
            traffic.bytes() - before};
}

Taken planned(ToyRun& run, const Make& make) {
    kernels::PlanDevice device(*run.model.device);
    const auto stream = device.make_stream();
    kernels::Arena arena(device);
    model::Compute compute{device, *stream, arena};
    model::ModelSet models;
    const int ranks = run.environment.data().size();
    const auto world = parallel::make_mirror_world(
        {.data = ranks}, run.environment.data().rank(), kernels::PlanDevice::owns,
        {.traffic = std::make_shared<parallel::Traffic>()});
    const parallel::Mesh mesh(*world, {.data = ranks});
    models.add("policy", std::make_unique<model::Weights>(
                             device, run.model.config, model::Passes::forward_and_backward,
                             model_axes(mesh, run.environment.physical)));
    const Environment environment{.compute = compute,
                                  .mesh = mesh,
                                  .models = models,
                                  .task = run.task,
                                  .log = run.log,
                                  .clock = run.clock,
                                  .seed = run.environment.seed,
                                  .physical = run.environment.physical,
                                  .planning = true};
    return taken(environment, make);
}

/// On one to three ranks. `sends`: with several ranks. A toy run holds its model twice; the plan
/// only what is the stage's.
void expect_same_memory(const Make& make, const PhysicalOptions& physical, bool sends = true) {
    for (const int ranks : {1, 2, 3}) {
        parallel::ThreadWorld world(ranks);
        world.run([&](parallel::Communicator& communicator) {
            ToyRun run(communicator, physical);
            const Taken plan = planned(run, make);
            const std::int64_t other = run.model.device->bytes_in_use();
            kernels::PlanDevice policy(*run.model.device);
            const model::Weights weights(policy, run.model.config,
                                         model::Passes::forward_and_backward,
                                         run.environment.model_axes());
            run.model.compute.arena.reserve(0);
            const Taken real = taken(run.environment, make);
            EXPECT_EQ(plan.scratch, real.scratch) << ranks << " ranks";
            EXPECT_EQ(plan.sent, real.sent) << ranks << " ranks";
            EXPECT_EQ(plan.sent > 0, sends && ranks > 1);
            EXPECT_EQ(plan.held - policy.bytes_in_use(), real.held - other) << ranks << " ranks";
            EXPECT_GT(plan.scratch, 0);
        });
    }
}

GrpoOptions grpo_options() {
    GrpoOptions options;
    options.steps = 2;
    options.num_prompts_per_step = 4;
    options.num_generations = 3;
    options.sampling.max_completion_length = 9;
    options.rewards.reward_funcs = {"think_format"};
    options.optimizer.chunk_tokens = 16;
    options.optimizer.chunk_multiple = 3;
    options.eval_steps = 1;
    options.evaluation.sampling.max_completion_length = 12;
    return options;
}

TEST(Rehearsal, OfGrpoFindsTheMemoryThatTheRealDeviceTakes) {
    const Make make = [](const Environment& environment) {
        return make_grpo(environment, grpo_options());
    };
    expect_same_memory(make, {.slots = 5});
    expect_same_memory(make, {.slots = 50, .recompute = true, .zero = 0});
    expect_same_memory(make, {.slots = 5, .zero = 3});
    expect_same_memory(make, {.slots = 5, .zero = 3, .stream_weights = true});
}

TEST(Rehearsal, KnowsThatAReferenceIsAModelMore) {
    test::on_one_rank([](ToyRun& run) {
        const auto held = [&](double beta) {
            return planned(run,
                           [&](const Environment& environment) {
                               GrpoOptions options = grpo_options();
                               options.beta = beta;
                               return make_grpo(environment, options);
                           })
                .held;
        };
        kernels::PlanDevice reference(*run.model.device);
        const model::Weights weights(reference, run.model.config, model::Passes::forward);
        EXPECT_EQ(held(0.1) - held(0.0), reference.bytes_in_use());
    });
}

TEST(Rehearsal, OfRejectionSamplingFindsTheMemoryThatTheRealDeviceTakes) {
    const Make make = [](const Environment& environment) {
        RejectOptions options;
        options.num_prompts = 6;
        options.num_prompts_per_step = 4;
        options.num_generations = 3;
        options.sampling.max_completion_length = 7;
        options.rewards.reward_funcs = {"think_format"};
        options.filter_funcs = {};
        options.filter_min = {};
        return make_reject(environment, options);
    };
    expect_same_memory(make, {.slots = 4}, false);
}

}  // namespace
}  // namespace rankwise::stages
