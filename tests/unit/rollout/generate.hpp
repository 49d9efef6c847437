// Running the generator in tests: requests, one rank or several, and what every answer must equal.
#pragma once

#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "parallel/mesh.hpp"
#include "parallel/thread_world.hpp"
#include "src/base/philox.hpp"
#include "src/model/decoder.hpp"
#include "src/rollout/generator.hpp"
#include "tests/support/small_model.hpp"

namespace rankwise::test {

/// Random ids (never id 0, which tests use as the stop id).
inline std::vector<TokenId> random_ids(std::int64_t count, std::uint64_t id,
                                       std::int64_t vocabulary) {
    RandomSequence random(RandomStream(7, Purpose::data_generation, id));
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < count; ++i) {
        ids.push_back(
            static_cast<TokenId>(1 + random.below(static_cast<std::uint64_t>(vocabulary - 1))));
    }
    return ids;
}

/// A request for each prompt length, `samples` answers each.
inline std::vector<rollout::Request> requests_of(const std::vector<std::int64_t>& lengths,
                                                 std::int32_t samples,
                                                 std::int64_t vocabulary = 37) {
    std::vector<rollout::Request> requests;
    for (std::size_t r = 0; r < lengths.size(); ++r) {
        requests.push_back({.prompt_id = 100 + r,
                            .group = static_cast<std::int64_t>(r),
                            .samples = samples,
                            .step = 3,
                            .prompt = random_ids(lengths[r], r, vocabulary)});
    }
    return requests;
}

/// Everything on one rank, with a generator of its own.
inline std::vector<Trajectory> generate(SmallModel& model,
                                        const std::vector<rollout::Request>& requests,
                                        const rollout::SamplingOptions& sampling,
                                        const rollout::GeneratorOptions& options = {},
                                        const text::Tokenizer* tokenizer = nullptr) {
    rollout::Generator generator(model.compute, model.weights, options, tokenizer,
                                 model.config.vocab_size);
    rollout::LocalWork work(requests);
    return generator.run(requests, sampling, work, 5, {});
}

/// Log-probabilities and entropies of answers by the scoring pass.
inline model::Logprobs score(SmallModel& model, std::span<const Trajectory> trajectories,
                             float temperature) {
    model::Microbatch batch;
    for (const Trajectory& trajectory : trajectories) {
        model::append_sequence(batch, trajectory.tokens, trajectory.prompt_size());
    }
    return model::score(model.compute, model.weights,
                        {.ids = model.config.vocab_size, .temperature = temperature}, batch);
}

/// What the sampler noted is what a scoring pass computes, bit for bit.
inline void expect_exact_logprobs(SmallModel& model, std::span<const Trajectory> trajectories,
                                  float temperature) {
    const model::Logprobs scored = score(model, trajectories, temperature);
    std::size_t at = 0;
    for (const Trajectory& trajectory : trajectories) {
        const auto prompt = static_cast<std::size_t>(trajectory.prompt_size());
        ASSERT_EQ(trajectory.logprobs.size(), trajectory.tokens.size());
        for (std::size_t t = 0; t < prompt; ++t) ASSERT_EQ(trajectory.logprobs[t], 0.0F);
        for (std::size_t t = prompt; t < trajectory.tokens.size(); ++t) {
            ASSERT_EQ(trajectory.logprobs[t], scored.logprob[at++])
                << "group " << trajectory.group << ", sample " << trajectory.sample << ", token "
                << t;
        }
    }
    EXPECT_EQ(at, scored.logprob.size());
}

/// Answers of the same tokens, log-probabilities and ends.
inline void expect_same(const std::vector<Trajectory>& a, const std::vector<Trajectory>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a[i].tokens, b[i].tokens);
        EXPECT_EQ(a[i].logprobs, b[i].logprobs);
        EXPECT_EQ(a[i].finish_reason, b[i].finish_reason);
    }
}

/// Answers of several ranks, which are threads, brought together.
class Together {
  public:
    void add(std::span<const Trajectory> mine) {
        const std::lock_guard lock(mutex_);
        all_.insert(all_.end(), mine.begin(), mine.end());
    }
    /// In canonical order.
    [[nodiscard]] std::vector<Trajectory> all() {
        std::ranges::sort(all_, [](const Trajectory& a, const Trajectory& b) {
            return std::pair(a.group, a.sample) < std::pair(b.group, b.sample);
        });
        return all_;
    }

  private:
    std::mutex mutex_;
    std::vector<Trajectory> all_;
};

/// How ranks of a mesh generate together.
struct MeshCase {
    parallel::MeshShape shape;
    bool sharded = false;  ///< zero = 3
    bool stream = false;
    std::int64_t expert_rows = 0;
    int virtual_stages = 1;
};

inline std::string to_string(const MeshCase& c) {
    return fmt::format("{}, {} virtual stages, sharded {}, streamed {}", to_string(c.shape),
                       c.virtual_stages, c.sharded, c.stream);
}

/// One rank of such a mesh, with its part of the model.
struct MeshRank {
    MeshRank(const MeshCase& c, const model::ModelConfig& config, parallel::Communicator& world)
        : mesh(world, c.shape),
          model(config, plain_device(), 1, 0.4,
                {.tensor = several(parallel::Axis::tensor),
                 .shards = c.sharded ? &mesh.weights() : nullptr,
                 .pipeline = {several(parallel::Axis::pipeline), c.virtual_stages},
                 .experts = {.axis = several(parallel::Axis::expert),
                             .data_rank = mesh.coordinates().data,
                             .rows = c.expert_rows}}),
          dealing(mesh.axis(parallel::Axis::data).split(0, mesh.coordinates().data, "dealing")),
          generator(model.compute, model.weights,
                    {.slots = 2, .prefill_tokens = 16, .stream_weights = c.stream}, nullptr,
                    config.vocab_size) {}

    [[nodiscard]] std::vector<Trajectory> generate(
        std::span<const rollout::Request> requests, const rollout::SamplingOptions& sampling,
        const rollout::Generator::Callbacks& callbacks = {}) {
        rollout::DealtWork dealt(requests, *dealing, 2);
        rollout::GroupWork work(dealt, mesh.axis(parallel::Axis::tensor),
                                several(parallel::Axis::pipeline));
        return generator.run(requests, sampling, work, 5, callbacks);
    }
    /// Whether its answers are those that count of its data rank.
    [[nodiscard]] bool speaks() const {
        return mesh.coordinates().tensor == 0 && mesh.coordinates().pipeline == 0;
    }
    [[nodiscard]] parallel::Communicator* several(parallel::Axis axis) const {
        return mesh.degree(axis) > 1 ? &mesh.axis(axis) : nullptr;
    }

    parallel::Mesh mesh;
    SmallModel model;
    std::unique_ptr<parallel::Communicator> dealing;
    rollout::Generator generator;
};

/// Answers of all data ranks together, in canonical order. `prepare` is called on each rank first.
inline std::vector<Trajectory> generated_together(
    const MeshCase& c, const model::ModelConfig& config, std::span<const rollout::Request> requests,
    const rollout::SamplingOptions& sampling, const std::function<void(MeshRank&)>& prepare = {}) {
    Together answers;
    parallel::ThreadWorld(narrow<int>(c.shape.ranks())).run([&](parallel::Communicator& world) {
        MeshRank rank(c, config, world);
        if (prepare) prepare(rank);
        const auto mine = rank.generate(requests, sampling);
        EXPECT_EQ(rank.generator.pages_in_use(), 0);
        if (rank.speaks()) answers.add(mine);
    });
    return answers.all();
}

/// Calls each(requests, sampling, answers of one rank): for fewer answers than ranks, and for more
/// than slots with a prompt of several passes.
template <class Each>
void for_few_and_many_answers(const model::ModelConfig& config, const Each& each) {
    for (const std::vector<std::int64_t>& lengths :
         {std::vector<std::int64_t>{3}, std::vector<std::int64_t>{3, 70, 1, 20, 5}}) {
        SCOPED_TRACE(fmt::format("{} prompts", lengths.size()));
        const auto requests = requests_of(lengths, lengths.size() == 1 ? 1 : 3);
        const rollout::SamplingOptions sampling{
            .temperature = 0.8, .max_new_tokens = 12, .stop_ids = {0}, .seed = 4};
        SmallModel alone(config);
        each(requests, sampling, generate(alone, requests, sampling));
    }
}

/// Gives one sample a poll; only on one rank may it be asked.
class SlowWork final : public rollout::WorkSource {
  public:
    SlowWork(std::span<const rollout::Request> requests, bool may_be_asked)
        : work_(requests), may_be_asked_(may_be_asked) {}
    std::vector<rollout::WorkUnit> poll(std::int64_t free_slots, bool idle) override {
        EXPECT_TRUE(may_be_asked_);
        if (!idle && ++polls_ % 3 != 0) return {};
        return work_.poll(std::min<std::int64_t>(free_slots, 1), idle);
    }
    [[nodiscard]] bool exhausted() const override { return work_.exhausted(); }

  private:
    rollout::LocalWork work_;
    bool may_be_asked_;
    std::int64_t polls_ = 0;
};

}  // namespace rankwise::test
