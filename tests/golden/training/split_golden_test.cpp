// What agrees with the goldens on one rank is computed to the bit on tensor and pipeline ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

#include "parallel/mesh.hpp"
#include "parallel/self_communicator.hpp"
#include "parallel/thread_world.hpp"
#include "tests/golden/training/goldens.hpp"
#include "tests/support/small_model.hpp"
#include "tests/support/whole_trace.hpp"

namespace rankwise::test {
namespace {

/// What three steps leave.
struct Left {
    std::vector<double> losses, norms;
    std::vector<std::vector<float>> logprobs;  ///< samples ascending, of the last step
    std::vector<UInt128> weights;
};

/// @param trace  gets the activations, entropies and gradients of every parameter
Left three_steps(GoldenModel& model, const Golden& golden, parallel::Communicator& data,
                 const update::TrainerOptions& options, WholeTrace& trace) {
    GoldenUpdate update(model, golden, data, options);
    update::UpdateTrace mine(model.weights);
    update.trainer().watch(&mine);
    Left left;
    for (int step = 0; step < 3; ++step) {
        left.norms.push_back(update.step());
        left.losses.push_back(update.loss());
    }
    for (const auto& [sample, values] : update.logprobs()) left.logprobs.push_back(values);
    left.weights = model.weights.digests(model.compute);
    trace.add(mine.records());
    return left;
}

bool splits_in_two(const model::ModelConfig& config) {
    const std::vector<int> degrees = model::tensor_degrees(config);
    return std::ranges::find(degrees, 2) != degrees.end();
}

TEST(SplitGoldens, TensorTwoTimesPipelineTwoGivesTheBitsOfOneRank) {
    const auto all = training_goldens();
    if (all.empty()) GTEST_SKIP() << "no test data folder";
    int split = 0;
    for (const Golden& golden : all) {
        const model::ModelConfig config = config_of(golden);
        if (!splits_in_two(config) || model::most_pipeline_ranks(config, 1) < 2) continue;
        SCOPED_TRACE(golden.name);
        ++split;
        const update::TrainerOptions options{.head = {.ids = config.vocab_size}};
        Left expected;
        WholeTrace whole;
        WholeTrace in_parts;
        {
            GoldenModel alone(plain_device(), golden);
            const auto self = parallel::make_self_communicator({}, "data");
            expected = three_steps(alone, golden, *self, options, whole);
        }
        std::mutex checks;
        parallel::ThreadWorld world(4);
        world.run([&](parallel::Communicator& ranks) {
            const parallel::Mesh mesh(ranks, {.data = 1, .pipeline = 2, .tensor = 2});
            GoldenModel part(plain_device(), golden,
                             {.tensor = &mesh.axis(parallel::Axis::tensor),
                              .pipeline = model::pipeline_axis(
                                  mesh, parallel::Schedule::one_forward_one_backward)});
            const Left got =
                three_steps(part, golden, mesh.axis(parallel::Axis::data), options, in_parts);
            const std::lock_guard lock(checks);
            EXPECT_EQ(got.norms, expected.norms);
            EXPECT_EQ(got.weights, expected.weights);
            if (!part.weights.pipeline_part().has_head) return;
            EXPECT_EQ(got.losses, expected.losses);
            EXPECT_EQ(got.logprobs, expected.logprobs);
        });
        EXPECT_EQ(in_parts.count(update::TracePass::gradient),
                  whole.count(update::TracePass::gradient));
        for (const auto& [place, digest] : in_parts.values())
            EXPECT_EQ(whole.values().at(place), digest) << std::get<std::string>(place);
    }
    EXPECT_GE(split, 3);
}

}  // namespace
}  // namespace rankwise::test
