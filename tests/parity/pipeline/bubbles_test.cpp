// How long the ranks of a pipeline idle, measured: the real passes and messages, with layers that
// sleep.
#include <gtest/gtest.h>

#include "parallel/mesh.hpp"
#include "parallel/thread_world.hpp"
#include "src/rollout/generator.hpp"
#include "src/update/trainer.hpp"
#include "tests/support/sleeping_device.hpp"
#include "tests/support/small_model.hpp"

namespace rankwise::update {
namespace {

using parallel::Communicator;
using parallel::Schedule;

constexpr int kMicroBatches = 8;
constexpr std::chrono::milliseconds kLayer{16};
constexpr int kAttempts = 5;

/// Layers of a later attempt take half as long again: what the machine itself needs between them
/// (or other programs on it) weighs less, and the formulas do not depend on it.
std::chrono::milliseconds layer_of(int attempt) {
    std::chrono::milliseconds layer = kLayer;
    for (int i = 0; i < attempt; ++i) layer = layer * 3 / 2;
    return layer;
}

model::ModelConfig config_of() {
    model::ModelConfig config = test::small_config(model::Family::llama);
    config.layers = 8;
    return config;
}

/// Share of the wall time of an update's passes in which the ranks of a pipeline do not compute.
double idle_share(int ranks, Schedule schedule, std::chrono::milliseconds layer) {
    std::vector<double> busy_s(static_cast<std::size_t>(ranks), 0.0);
    std::vector<double> wall(static_cast<std::size_t>(ranks), 0.0);
    parallel::ThreadWorld(ranks).run([&](Communicator& world) {
        parallel::Mesh mesh(world, {.pipeline = ranks});
        const auto config = config_of();
        test::DeviceUnderTest cpu(test::plain_device());
        test::SleepingDevice device(*cpu, config.intermediate, layer);
        kernels::Arena arena(device);
        model::Compute compute{device, cpu.stream(), arena};
        model::Weights weights(device, config, model::Passes::forward_and_backward,
                               {.pipeline = model::pipeline_axis(mesh, schedule)});
        model::initialise(weights, {}, 1, compute);
        const std::vector<TokenId> prompt{1, 5, 9};
        const std::vector<TokenId> answer{4, 2};
        std::vector<SampleSize> sizes;
        for (std::int64_t i = 0; i < kMicroBatches; ++i) sizes.push_back({i, 3, 2});
        const PlanOptions options{.chunk_tokens = 5, .chunk_multiple = kMicroBatches};
        Trainer trainer(compute, weights, mesh.axis(parallel::Axis::data),
                        {.head = {.ids = config.vocab_size}, .schedule = schedule}, {});
        world.barrier("test");
        const auto begin = std::chrono::steady_clock::now();
        const auto now_s = [&] {
            return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        };
        const auto at = static_cast<std::size_t>(world.rank());
        (void)trainer.step(
            plan_minibatch(sizes, options), options,
            {.text =
                 [&](std::int64_t) {
                     return SampleText{prompt, answer};
                 },
             .loss = [](std::int64_t, std::span<const float>, std::span<const float>,
                        std::span<float> coefficient) { std::ranges::fill(coefficient, 1.0F); }},
            0.0, [&] { wall[at] = now_s(); });
        busy_s[at] = device.busy_s();
    });
    double busy = 0.0;
    for (const double seconds : busy_s) busy += seconds;
    return 1.0 - busy / (*std::max_element(wall.begin(), wall.end()) * ranks);
}

double formula(int ranks, Schedule schedule) {
    const double others = ranks - 1;
    const double work = schedule == Schedule::interleaved   ? 2 * kMicroBatches
                        : schedule == Schedule::zero_bubble ? 3 * kMicroBatches
                                                            : kMicroBatches;
    return others / (work + others);
}

/// The same while answers are generated: as many groups of slots as ranks, so many tokens each.
double idle_share_of_generation(int ranks, bool tied, std::int64_t tokens,
                                std::chrono::milliseconds layer) {
    std::vector<double> busy_s(static_cast<std::size_t>(ranks), 0.0);
    std::vector<double> wall(static_cast<std::size_t>(ranks), 0.0);
    parallel::ThreadWorld(ranks).run([&](Communicator& world) {
        parallel::Mesh mesh(world, {.pipeline = ranks});
        model::ModelConfig config = config_of();
        config.tied = tied;
        test::DeviceUnderTest cpu(test::plain_device());
        test::SleepingDevice device(*cpu, config.intermediate, layer);
        kernels::Arena arena(device);
        model::Compute compute{device, cpu.stream(), arena};
        model::Weights weights(
            device, config, model::Passes::forward,
            {.pipeline = model::pipeline_axis(mesh, Schedule::one_forward_one_backward)});
        model::initialise(weights, {}, 1, compute);
        std::vector<rollout::Request> requests;
        for (int i = 0; i < ranks; ++i)
            requests.push_back(
                {.prompt_id = static_cast<std::uint64_t>(i), .group = i, .prompt = {7}});
        rollout::Generator generator(compute, weights, {.slots = ranks}, nullptr,
                                     config.vocab_size);
        rollout::LocalWork work(requests);
        world.barrier("test");
        const auto begin = std::chrono::steady_clock::now();
        (void)generator.run(requests, {.max_new_tokens = tokens, .seed = 1}, work, 0, {});
        const auto at = static_cast<std::size_t>(world.rank());
        wall[at] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        busy_s[at] = device.busy_s();
    });
    double busy = 0.0;
    for (const double seconds : busy_s) busy += seconds;
    return 1.0 - busy / (*std::max_element(wall.begin(), wall.end()) * ranks);
}

/// Ranks idle while the first group comes to them, and no more: not once a token.
TEST(PipelineBubbles, GenerationHasOneBubbleAPhaseNotOneAToken) {
    constexpr std::int64_t kTokens = 10;
    for (const int ranks : {2, 4}) {
        for (const bool tied : {false, true}) {
            const double expected = (ranks - 1.0) / (ranks * kTokens + ranks - 1.0);
            double found = 1.0;
            for (int attempt = 0; attempt < kAttempts && found > expected + 0.02; ++attempt)
                found = std::min(found,
                                 idle_share_of_generation(ranks, tied, kTokens, layer_of(attempt)));
            std::printf("generation on %d ranks, tied %d: idle %.3f, formula %.3f\n", ranks,
                        tied ? 1 : 0, found, expected);
            EXPECT_NEAR(found, expected, 0.03);
        }
    }
}

/// A machine that is busy with other things makes waits longer, never shorter: the best of a few,
/// each with longer layers.
TEST(PipelineBubbles, AreThoseOfTheFormulasWithinATenth) {
    for (const int ranks : {2, 4}) {
        for (const Schedule schedule :
             {Schedule::one_forward_one_backward, Schedule::interleaved, Schedule::zero_bubble}) {
            const double expected = formula(ranks, schedule);
            double found = 1.0;
            for (int attempt = 0; attempt < kAttempts && found > 1.1 * expected; ++attempt)
                found = std::min(found, idle_share(ranks, schedule, layer_of(attempt)));
            std::printf("%s on %d ranks: idle %.3f, formula %.3f\n",
                        std::string(parallel::name_of(schedule)).c_str(), ranks, found, expected);
            EXPECT_NEAR(found, expected, 0.1 * expected);
        }
    }
}

}  // namespace
}  // namespace rankwise::update
