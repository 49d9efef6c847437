#include "src/stages/rehearsal.hpp"

#include <algorithm>
#include <array>

#include "src/stages/answers.hpp"

namespace rankwise::stages {
namespace {

/// Passes after which generation takes no more memory: the prompts', and one of all slots.
constexpr int kPasses = 2;

struct Chunk {
    std::size_t minibatch = 0;
    std::vector<update::Bundle> all;  ///< of the minibatch
    Range bundles;                    ///< of the chunk
    std::int64_t tokens = 0;
    std::int64_t waves = 0;  ///< of the minibatch that has most
};

/// All work on this rank, with the messages that share it out: of each poll a round of dealing over
/// the data ranks, and word to the ranks that generate together (DealtWork, GroupWork).
class SharedOutWork final : public rollout::WorkSource {
  public:
    SharedOutWork(std::span<const rollout::Request> requests, const Environment& environment)
        : local_(requests),
          environment_(environment),
          word_(environment.mesh.axis(parallel::Axis::tensor), environment.pipeline().axis) {}

    std::vector<rollout::WorkUnit> poll(std::int64_t free_slots, bool idle) override {
        if (exhausted()) return {};
        parallel::Communicator& data = environment_.data();
        if (data.size() > 1) {
            std::vector<std::int64_t> all(static_cast<std::size_t>(data.size()));
            data.all_gather("free slots", std::span<const std::int64_t>(&free_slots, 1), all);
        }
        std::vector<std::int64_t> message = rollout::room_for_work(free_slots);
        word_.tell(message);
        return local_.poll(free_slots, idle);
    }
    [[nodiscard]] bool exhausted() const override { return local_.exhausted(); }

  private:
    rollout::LocalWork local_;
    const Environment& environment_;
    rollout::GroupWord word_;
};

void rehearsed(const Environment& environment, std::string_view phase, double times) {
    if (environment.rehearsed) environment.rehearsed(phase, times);
}

Chunk largest_chunk(std::span<const std::vector<update::SampleSize>> minibatches,
                    const update::PlanOptions& options, int data_ranks) {
    Chunk largest;
    std::int64_t waves = 0;
    for (std::size_t m = 0; m < minibatches.size(); ++m) {
        const update::MinibatchPlan plan = update::plan_minibatch(minibatches[m], options);
        for (const Range& chunk : plan.chunks) {
            std::int64_t tokens = 0;
            for (std::int64_t b = chunk.begin; b < chunk.end; ++b)
                tokens += plan.bundles[static_cast<std::size_t>(b)].tokens;
            if (tokens > largest.tokens) largest = {m, plan.bundles, chunk, tokens};
        }
        waves = std::max(waves, plan.waves(data_ranks));
    }
    largest.waves = waves;
    return largest;
}

}  // namespace

void rehearse_generation(const Environment& environment, rollout::Generator& generator,
                         std::span<const tasks::Problem> problems, std::int64_t samples,
                         const rollout::SamplingOptions& sampling, std::string_view phase) {
    // Of all answers a rank has its share at a time, or its slots if those are fewer.
    const std::int64_t answers =
        ceil_div(std::ssize(problems) * samples, std::int64_t{environment.data().size()});
    const std::int64_t prompts = std::min<std::int64_t>(
        std::ssize(problems), ceil_div(std::min(answers, environment.physical.slots), samples) + 1);
    const std::vector<rollout::Request> requests =
        requests_of(environment, problems, narrow<std::int32_t>(samples), 0);
    SharedOutWork work(
        std::span<const rollout::Request>(requests).first(static_cast<std::size_t>(prompts)),
        environment);
    // Rounds of answers that fill the slots, one after the other, each as long as it may become.
    const auto rounds = static_cast<double>(ceil_div(answers, environment.physical.slots));
    const auto steps = static_cast<double>(sampling.max_new_tokens);
    // Of a pipeline each group of slots asks in turn.
    const std::int64_t groups = generator.groups_for(requests);
    std::int64_t turn = 0;
    const auto stop = [&] {
        const std::int64_t now = turn++;
        if (now % groups != 0) return false;
        // Asked before the first pass (weights were gathered), after it (prompts, one step), ….
        const std::int64_t passes = now / groups;
        const std::array times{1.0, rounds, rounds * (steps - 1.0)};
        rehearsed(environment, phase, times.at(static_cast<std::size_t>(passes)));
        return passes == kPasses;
    };
    (void)generator.run(requests, sampling, work, 0, {.finished = {}, .token = {}, .stop = stop});
}

void rehearse_score(const Environment& environment, model::Weights& weights,
                    const model::HeadOptions& head, std::span<const update::SampleSize> minibatch,
                    const update::PlanOptions& options, std::int64_t updates) {
    const std::vector<update::SampleSize> sizes(minibatch.begin(), minibatch.end());
    const Chunk chunk = largest_chunk(std::span(&sizes, 1), options, environment.data().size());
    if (chunk.bundles.empty()) return;
    const model::OnDevice here(environment.compute, weights);
    const std::vector<TokenId> ids(static_cast<std::size_t>(chunk.tokens), 0);
    model::Microbatch batch;
    update::append_bundles(
        batch, {chunk.all, {}}, options.share_prompts, chunk.bundles, [&](std::int64_t sample) {
            const update::SampleSize& size = sizes[static_cast<std::size_t>(sample)];
            return update::SampleText{
                std::span(ids).first(static_cast<std::size_t>(size.prompt_tokens)),
                std::span(ids).first(static_cast<std::size_t>(size.answer_tokens))};
        });
    (void)model::score(environment.compute, weights, head, batch);
    rehearsed(environment, "reference", static_cast<double>(chunk.waves * updates));
}

void rehearse_update(const Environment& environment, update::Trainer& trainer,
                     std::span<const std::vector<update::SampleSize>> minibatches,
                     const update::PlanOptions& options, std::int64_t updates) {
    const Chunk chunk = largest_chunk(minibatches, options, environment.data().size());
    if (chunk.bundles.empty()) return;
    const std::span<const update::SampleSize> sizes = minibatches[chunk.minibatch];
    // Every rank has this chunk, in as many waves as a pipeline has in flight. Its ids are many
    // different ones: their rows are gathered.
    const std::int64_t data = environment.data().size();
    const std::int64_t stages = std::int64_t{environment.mesh.degree(parallel::Axis::pipeline)} *
                                parallel::virtual_stages_of(environment.physical.schedule);
    const std::int64_t waves =
        environment.pipeline().axis == nullptr
            ? 1
            : std::min(2 * stages, update::plan_minibatch(sizes, options).waves(data));
    const std::vector<Range> chunks(static_cast<std::size_t>(data * waves), chunk.bundles);
    const update::MinibatchPlan plan{chunk.all, chunks};
    const std::int64_t vocabulary = environment.models.at("policy").config().vocab_size;
    std::vector<TokenId> ids(static_cast<std::size_t>(chunk.tokens));
    for (std::size_t i = 0; i < ids.size(); ++i)
        ids[i] = narrow<TokenId>(static_cast<std::int64_t>(i) % vocabulary);
    std::size_t at = 0;
    const auto next = [&](std::int64_t size) {
        const auto count = static_cast<std::size_t>(size);
        if (at + count > ids.size()) at = 0;
        const auto some = std::span(ids).subspan(at, std::min(count, ids.size() - at));
        at += some.size();
        return some;
    };
    (void)trainer.step(
        plan, options,
        {.text =
             [&](std::int64_t sample) {
                 const update::SampleSize& size = sizes[static_cast<std::size_t>(sample)];
                 return update::SampleText{next(size.prompt_tokens), next(size.answer_tokens)};
             },
         .loss = [](std::int64_t, std::span<const float>, std::span<const float>,
                    std::span<float> coefficient) { std::ranges::fill(coefficient, 1.0F); },
         .mtp_loss = [](std::int64_t, std::span<const float>,
                        std::span<float> coefficient) { std::ranges::fill(coefficient, 1.0F); }},
        0.0, [&] {
            // Of all waves, what was sent in those that were gone through.
            const double times = static_cast<double>(chunk.waves * updates);
            rehearsed(environment, "update", times / static_cast<double>(waves));
        });
    rehearsed(environment, "optimizer", static_cast<double>(updates));
}

}  // namespace rankwise::stages
