// The memory that a rehearsal on a device without arithmetic finds is what the real device takes,
// and what it counts as sent is what real ranks send.
#include <gtest/gtest.h>

#include <map>

#include "kernels/plan_device.hpp"
#include "parallel/mirror_communicator.hpp"
#include "src/stages/grpo.hpp"
#include "src/stages/reject.hpp"
#include "tests/unit/stages/toy_run.hpp"

namespace rankwise::stages {
namespace {

using test::ToyRun;

/// Scratch memory at its most, what passes in flight keep beside it, and what the stage holds when
/// it is done.
struct Taken {
    std::int64_t scratch = 0;
    std::int64_t flight = 0;
    std::int64_t held = 0;
    std::map<std::string, std::int64_t> sent_over;  ///< bytes, by axis
    [[nodiscard]] std::int64_t sent() const {
        std::int64_t bytes = 0;
        for (const auto& [axis, over] : sent_over) bytes += over;
        return bytes;
    }
};

std::map<std::string, std::int64_t> bytes_by_axis(const parallel::Traffic& traffic) {
    std::map<std::string, std::int64_t> bytes;
    for (const parallel::Traffic::Row& row : traffic.rows()) {
        if (row.bytes > 0) bytes[row.communicator] += row.bytes;
    }
    return bytes;
}

using Make = std::function<std::unique_ptr<Stage>(const Environment&)>;

Taken taken(const Environment& environment, const Make& make) {
    const auto stage = make(environment);
    parallel::Traffic& traffic = *environment.data().instruments().traffic;
    traffic.reset();
    stage->rehearse();
    return {environment.compute.arena.peak_bytes(), environment.compute.arena.peak_bytes_beside(),
            environment.compute.device.bytes_in_use(), bytes_by_axis(traffic)};
}

Taken planned(ToyRun& run, const Make& make) {
    kernels::PlanDevice device(*run.model.device);
    const auto stream = device.make_stream();
    kernels::Arena arena(device);
    model::Compute compute{device, *stream, arena};
    model::ModelSet models;
    const parallel::Mesh& real = run.environment.mesh;
    const auto world =
        parallel::make_mirror_world(real.shape(), real.world().rank(), kernels::PlanDevice::owns,
                                    {.traffic = std::make_shared<parallel::Traffic>()});
    const parallel::Mesh mesh(*world, real.shape());
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

/// On one to three ranks. A toy run holds its model twice; the plan only what is the stage's.
void expect_same_memory(const Make& make, const PhysicalOptions& physical) {
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
            EXPECT_EQ(plan.sent_over, real.sent_over) << ranks << " ranks";
            EXPECT_EQ(plan.sent() > 0, ranks > 1);
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
    expect_same_memory(make, {.slots = 50, .recompute = model::kAllLayers, .zero = 0});
    expect_same_memory(make, {.slots = 50, .recompute = 1, .zero = 0});
    expect_same_memory(make, {.slots = 5, .zero = 3});
    expect_same_memory(make, {.slots = 5, .zero = 3, .stream_weights = true});
}

/// What the ranks of a mesh plan, and what they take: the most memory of any, the bytes of all.
struct Compared {
    std::int64_t scratch = 0, flight = 0, held = 0;
    std::map<std::string, std::int64_t> sent_over;
    void add(const Taken& taken, std::int64_t others) {
        scratch = std::max(scratch, taken.scratch);
        flight = std::max(flight, taken.flight);
        held = std::max(held, taken.held - others);
        for (const auto& [axis, bytes] : taken.sent_over) sent_over[axis] += bytes;
    }
};

void expect_within_5_percent(std::int64_t planned, std::int64_t taken, std::string_view what) {
    const auto of = static_cast<double>(taken);
    EXPECT_NEAR(static_cast<double>(planned), of, 0.05 * of) << what;
}

TEST(Rehearsal, WithExpertsThatAreSharedOutFindsMemoryAndBytesOfEveryAxisWithin5Percent) {
    model::ModelConfig config = test::small_config(model::Family::deepseek_v3);
    config.vocab_size = test::kToyIds + 3;
    config.layers = 4;
    config.experts.routed = 16;
    GrpoOptions options = grpo_options();
    options.num_prompts_per_step = 8;
    options.num_generations = 8;
    options.sampling.max_completion_length = 60;
    options.optimizer.chunk_tokens = 400;
    options.eval_steps = 0;
    const Make make = [&](const Environment& environment) {
        return make_grpo(environment, options);
    };
    struct Layout {
        parallel::MeshShape shape;
        PhysicalOptions physical;
    };
    for (const auto& [shape, physical] :
         {Layout{{.tensor = 2, .expert = 2}, {}}, Layout{{.tensor = 4, .expert = 2}, {}},
          Layout{{.data = 2, .expert = 2}, {}}, Layout{{.data = 4, .expert = 2}, {.zero = 0}},
          Layout{{.data = 2, .expert = 2}, {.recompute = model::kAllLayers, .zero = 3}},
          Layout{{.data = 2, .tensor = 2, .expert = 4}, {.slots = 12, .expert_rows = 50}},
          Layout{{.data = 2, .pipeline = 2, .expert = 2},
                 {.schedule = parallel::Schedule::zero_bubble}},
          Layout{{.pipeline = 2, .tensor = 2, .expert = 2}, {.zero = 3}}}) {
        SCOPED_TRACE(fmt::format("{}, zero {}", to_string(shape), physical.zero));
        Compared plan, real;
        std::mutex mutex;
        parallel::ThreadWorld(narrow<int>(shape.ranks())).run([&](parallel::Communicator& world) {
            ToyRun run(world, shape, config, physical);
            const Taken planned_here = planned(run, make);
            const std::int64_t others = run.model.device->bytes_in_use();
            kernels::PlanDevice policy(*run.model.device);
            const model::Weights weights(policy, config, model::Passes::forward_and_backward,
                                         run.environment.model_axes());
            run.model.compute.arena.reserve(0);
            const Taken taken_here = taken(run.environment, make);
            const std::lock_guard lock(mutex);
            plan.add(planned_here, policy.bytes_in_use());
            real.add(taken_here, others);
        });
        expect_within_5_percent(plan.scratch, real.scratch, "scratch memory");
        expect_within_5_percent(plan.flight, real.flight, "passes in flight");
        expect_within_5_percent(plan.held, real.held, "what the stage holds");
        EXPECT_TRUE(real.sent_over.contains("expert"));
        for (const auto& [axis, bytes] : real.sent_over)
            expect_within_5_percent(plan.sent_over[axis], bytes, axis);
        EXPECT_EQ(plan.sent_over.size(), real.sent_over.size());
    }
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
    expect_same_memory(make, {.slots = 4});
}

}  // namespace
}  // namespace rankwise::stages
