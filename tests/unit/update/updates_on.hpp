// Updates of a small model on the ranks of a mesh, to be compared with those of one rank.
#pragma once

#include <gtest/gtest.h>

#include "parallel/mesh.hpp"
#include "parallel/thread_world.hpp"
#include "src/base/philox.hpp"
#include "src/update/trainer.hpp"
#include "tests/support/small_model.hpp"
#include "tests/support/traffic.hpp"

namespace rankwise::update::test_updates {

inline constexpr std::int64_t kVocabulary = 37;

struct Data {
    Data() {
        RandomSequence random(RandomStream(3, Purpose::data_generation));
        const auto ids = [&](std::int64_t count) {
            std::vector<TokenId> all;
            while (std::ssize(all) < count)
                all.push_back(static_cast<TokenId>(random.below(kVocabulary)));
            return all;
        };
        for (std::int64_t group = 0; group < 5; ++group) {
            prompts.push_back(ids(3 + 16 * group));
            for (const std::int64_t answer : {4, 1}) {
                answers.push_back(ids(answer + group));
                sizes.push_back({group, std::ssize(prompts.back()), std::ssize(answers.back())});
            }
        }
    }
    std::vector<std::vector<TokenId>> prompts, answers;
    std::vector<SampleSize> sizes;
};

/// A micro-batch of each chunk that has bundles.
inline std::vector<model::Microbatch> batches_of(const MinibatchPlan& plan) {
    const Data texts;
    std::vector<model::Microbatch> batches;
    for (const Range chunk : plan.chunks) {
        if (chunk.empty()) continue;
        append_bundles(batches.emplace_back(), plan, true, chunk, [&](std::int64_t sample) {
            const auto at = static_cast<std::size_t>(sample);
            return SampleText{texts.prompts[static_cast<std::size_t>(texts.sizes[at].group)],
                              texts.answers[at]};
        });
    }
    return batches;
}

/// Seven chunks, some of them empty: a last wave of which some data ranks have nothing.
inline constexpr PlanOptions kPlan{.chunk_tokens = 60, .chunk_multiple = 7};

struct Result {
    std::vector<UInt128> digests;
    std::vector<double> norms;
    friend bool operator==(const Result&, const Result&) = default;
};

/// Two updates; weights and gradient norms after them. With a module that predicts further samples
/// do not share their prompts.
inline Result updates(model::Compute& compute, model::Weights& weights,
                      parallel::Communicator& data, const TrainerOptions& options,
                      UpdateTrace* trace = nullptr) {
    const Data texts;
    PlanOptions plan = kPlan;
    plan.share_prompts = !options.mtp;
    Trainer trainer(compute, weights, data, options, {.router_bias_rate = 1e-2});
    trainer.watch(trace);
    const MinibatchCallbacks callbacks{
        .text =
            [&](std::int64_t sample) {
                const auto at = static_cast<std::size_t>(sample);
                return SampleText{texts.prompts[static_cast<std::size_t>(texts.sizes[at].group)],
                                  texts.answers[at]};
            },
        .loss =
            [&](std::int64_t sample, std::span<const float> logprob, std::span<const float>,
                std::span<float> coefficient) {
                EXPECT_TRUE(weights.pipeline_part().has_head);
                for (std::size_t t = 0; t < coefficient.size(); ++t)
                    coefficient[t] = logprob[t] * (sample % 2 == 0 ? 0.25F : -0.125F);
            },
        .mtp_loss =
            [&](std::int64_t sample, std::span<const float> logprob, std::span<float> coefficient) {
                EXPECT_TRUE(options.mtp && weights.pipeline_part().has_head);
                for (std::size_t t = 0; t < coefficient.size(); ++t)
                    coefficient[t] = logprob[t] * (sample % 2 == 0 ? -0.5F : 0.125F);
            }};
    Result result;
    for (int step = 0; step < 2; ++step) {
        result.norms.push_back(
            trainer.step(plan_minibatch(texts.sizes, plan), plan, callbacks, 1e-2));
    }
    result.digests = weights.digests(compute);
    return result;
}

inline model::ModelConfig config_of(model::Family family, std::int64_t layers) {
    model::ModelConfig config = test::small_config(family);
    config.layers = layers;
    if (config.experts.routed > 0) config.experts.first_dense = 3;
    return config;
}

struct Layout {
    parallel::MeshShape shape;
    parallel::Schedule schedule = parallel::Schedule::one_forward_one_backward;
    std::int64_t recompute = 0;
    int zero = 1;
    std::int64_t expert_rows = 0;
    bool mtp = false;
    model::LogitsUse logits = model::LogitsUse::automatic;  ///< here: kept, as they are few
};

inline Result updates_on(parallel::Communicator& world, const model::ModelConfig& config,
                         const Layout& layout,
                         const std::function<void(std::span<const TraceRecord>)>& traced = {}) {
    parallel::Mesh mesh(world, layout.shape);
    parallel::Communicator* const tensor =
        layout.shape.tensor > 1 ? &mesh.axis(parallel::Axis::tensor) : nullptr;
    test::SmallModel model(
        config, test::plain_device(), 1, 0.4,
        {.tensor = tensor,
         .shards = layout.zero == 3 ? &mesh.weights() : nullptr,
         .pipeline = model::pipeline_axis(mesh, layout.schedule, layout.mtp),
         .experts = {.axis = layout.shape.expert > 1 ? &mesh.axis(parallel::Axis::expert) : nullptr,
                     .data_rank = mesh.coordinates().data,
                     .rows = layout.expert_rows}});
    UpdateTrace trace(model.weights);
    const Result result = updates(model.compute, model.weights, mesh.axis(parallel::Axis::data),
                                  {.head = {.ids = config.vocab_size, .logits = layout.logits},
                                   .recompute = layout.recompute,
                                   .zero = layout.zero,
                                   .mtp = layout.mtp,
                                   .schedule = layout.schedule},
                                  traced ? &trace : nullptr);
    if (traced) traced(trace.records());
    return result;
}

}  // namespace rankwise::update::test_updates
