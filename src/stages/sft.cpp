#include "src/stages/sft.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "src/base/philox.hpp"
#include "src/stages/gather.hpp"
#include "src/stages/rehearsal.hpp"
#include "src/stages/update_counts.hpp"
#include "src/tasks/jsonl_dataset.hpp"
#include "src/update/trainer.hpp"

namespace rankwise::stages {
namespace {

bool is_stage_before(const Environment& environment, const std::string& name) {
    const auto& before = environment.data_before;
    return std::find(before.begin(), before.end(), name) != before.end();
}

/// The file of a stage's `data`.
std::filesystem::path data_file(const Environment& environment, const std::string& data) {
    return is_stage_before(environment, data) ? environment.data_folder / (data + ".jsonl")
                                              : std::filesystem::path(data);
}

/// In the place of data that an earlier stage has not left yet: examples that fill chunks.
class FullChunks final : public tasks::DemonstrationSet {
  public:
    FullChunks(const Environment& environment, const SftOptions& options)
        : tokens_(std::min(environment.models.at("policy").config().max_position,
                           ceil_div(options.optimizer.chunk_tokens, std::int64_t{4}))) {}
    [[nodiscard]] std::optional<std::int64_t> size() const override { return kExamples; }
    [[nodiscard]] tasks::Demonstration demonstration(std::int64_t /*index*/) const override {
        tasks::Demonstration example;
        example.prompt.assign(1, 0);
        example.response.assign(static_cast<std::size_t>(std::max<std::int64_t>(1, tokens_ - 1)),
                                0);
        return example;
    }

  private:
    static constexpr std::int64_t kExamples = 1024;
    std::int64_t tokens_;
};

std::unique_ptr<tasks::DemonstrationSet> load_data(const Environment& environment,
                                                   const SftOptions& options) {
    if (options.data.empty()) return nullptr;
    if (environment.planning && !std::filesystem::exists(data_file(environment, options.data)))
        return std::make_unique<FullChunks>(environment, options);
    return std::make_unique<tasks::JsonlDemonstrations>(tasks::JsonlDemonstrations::from_file(
        data_file(environment, options.data), environment.task.tokenizer, {}));
}

class Sft final : public Stage {
  public:
    Sft(const Environment& environment, const SftOptions& options)
        : environment_(environment),
          options_(options),
          policy_(environment.models.at("policy")),
          own_examples_(load_data(environment, options)),
          examples_(own_examples_ ? *own_examples_ : *environment.task.demonstrations),
          rewards_(options.evaluation.rewards.rewards()),
          generator_(make_generator(environment, policy_)),
          trainer_(environment.compute, policy_, environment.data(),
                   trainer_options(environment, options), options.optimizer.adamw()) {
        size_ = examples_.size();
        steps_ =
            options.steps > 0
                ? options.steps
                : std::max<std::int64_t>(
                      1, static_cast<std::int64_t>(options.epochs * static_cast<double>(*size_)) /
                             options.batch_size);
        schedule_ = options.optimizer.schedule(steps_);
        trainer_.gradient_owners().break_order(environment.faults.arrival_order);
    }

    [[nodiscard]] std::int64_t steps() const override { return steps_; }
    [[nodiscard]] std::int64_t updates() const override { return trainer_.optimizer().steps(); }
    void watch(update::UpdateTrace* trace) override { trainer_.watch(trace); }
    [[nodiscard]] std::vector<OptimizerState> optimizers() override {
        return {{"policy", &trainer_.optimizer()}};
    }
    [[nodiscard]] std::map<std::string, io::StateValue> state() const override {
        return {{"num_tokens", tokens_seen_}};
    }
    void restore(const std::map<std::string, io::StateValue>& state) override {
        tokens_seen_ = std::get<std::int64_t>(state.at("num_tokens"));
    }

    /// Looks at the sizes of some batches, evenly apart.
    void rehearse() override {
        constexpr std::int64_t kBatches = 100;
        std::vector<std::vector<update::SampleSize>> minibatches;
        for (std::int64_t i = 0; i < std::min(kBatches, steps_); ++i) {
            const std::vector<tasks::Demonstration> batch =
                batch_of(i * steps_ / std::min(kBatches, steps_));
            std::vector<update::SampleSize>& sizes = minibatches.emplace_back();
            for (const tasks::Demonstration& example : batch) {
                const Parts parts = parts_of(example);
                sizes.push_back(
                    {std::ssize(sizes), std::ssize(parts.prompt), std::ssize(parts.answer)});
            }
        }
        rehearse_update(environment_, trainer_, minibatches,
                        {.chunk_tokens = options_.optimizer.chunk_tokens,
                         .chunk_multiple = options_.optimizer.chunk_multiple,
                         .share_prompts = false});
        if (options_.eval_steps > 0)
            rehearse_evaluation(environment_, options_.evaluation, generator_);
    }

    StepResult step(std::int64_t index) override {
        PhaseTimer timer(environment_, index);
        timer.enter("data");
        const std::vector<tasks::Demonstration> batch = batch_of(index);
        std::vector<update::SampleSize> sizes;
        std::int64_t counted = 0;
        for (std::size_t i = 0; i < batch.size(); ++i) {
            const Parts parts = parts_of(batch[i]);
            require_fits(batch[i]);
            sizes.push_back(
                {static_cast<std::int64_t>(i), std::ssize(parts.prompt), std::ssize(parts.answer)});
            counted += std::ssize(parts.answer);
        }
        const update::PlanOptions plan_options{.chunk_tokens = options_.optimizer.chunk_tokens,
                                               .chunk_multiple = options_.optimizer.chunk_multiple,
                                               .share_prompts = false};
        const update::MinibatchPlan plan = update::plan_minibatch(sizes, plan_options);
        UpdateCounts counts;
        counts.add(sizes, plan);
        idle_ranks_.look_at(environment_, plan);

        timer.enter("update");
        const double weight = 1.0 / static_cast<double>(counted);
        std::vector<SampleValues<2>> values;  // sums over a sample's tokens: -log p, entropy
        std::vector<SampleValues<1>> mtp_values;
        const update::MinibatchCallbacks callbacks{
            .text =
                [&](std::int64_t sample) {
                    const Parts parts = parts_of(batch[static_cast<std::size_t>(sample)]);
                    return update::SampleText{parts.prompt, parts.answer};
                },
            .loss =
                [&](std::int64_t sample, std::span<const float> logprob,
                    std::span<const float> entropy, std::span<float> coefficient) {
                    SampleValues<2> sums{sample, {0.0, 0.0}};
                    for (std::size_t t = 0; t < logprob.size(); ++t) {
                        sums.values[0] -= static_cast<double>(logprob[t]);
                        sums.values[1] += static_cast<double>(entropy[t]);
                        coefficient[t] = static_cast<float>(-weight);
                    }
                    if (environment_.faults.nan_loss_at == index + 1) sums.values[0] = NAN;
                    require_finite(sums.values[0], batch[static_cast<std::size_t>(sample)]);
                    values.push_back(sums);
                },
            .mtp_loss =
                [&](std::int64_t sample, std::span<const float> logprob,
                    std::span<float> coefficient) {
                    SampleValues<1> sum{sample, {0.0}};
                    for (const float value : logprob) sum.values[0] -= static_cast<double>(value);
                    std::ranges::fill(coefficient,
                                      static_cast<float>(-weight * options_.mtp_loss_weight));
                    require_finite(sum.values[0], batch[static_cast<std::size_t>(sample)]);
                    mtp_values.push_back(sum);
                }};
        const double lr = update::learning_rate(schedule_, trainer_.optimizer().steps());
        const update::TokenCounts before = trainer_.counts();
        const double norm = trainer_.step(plan, plan_options, callbacks, lr);
        timer.enter("record");
        const auto all = gather_by_sample(environment_.mesh, values);
        double loss = 0.0;
        double entropy = 0.0;
        for (const SampleValues<2>& sums : all) {
            loss += sums.values[0];
            entropy += sums.values[1];
        }
        tokens_seen_ += counted;
        StepResult result;
        result.metrics = {{"loss", loss * weight},
                          {"entropy", entropy * weight},
                          {"grad_norm", norm},
                          {"learning_rate", lr},
                          {"num_tokens", tokens_seen_}};
        if (options_.trains_mtp()) {
            double mtp_loss = 0.0;
            for (const auto& sum : gather_by_sample(environment_.mesh, mtp_values))
                mtp_loss += sum.values[0];
            result.metrics.emplace_back("mtp_loss", mtp_loss * weight);
        }
        counts.add_experts(environment_, trainer_.chunk_loads());
        counts.append(environment_, before, trainer_.counts(), result.metrics);
        const bool last = index + 1 == steps_;
        if (options_.eval_steps > 0 && ((index + 1) % options_.eval_steps == 0 || last)) {
            EvaluationResult measured =
                evaluate(environment_, options_.evaluation, generator_, rewards_, timer);
            result.evaluations.push_back({index + 1, std::move(measured.metrics)});
            result.samples = std::move(measured.samples);
        }
        const double seconds = timer.total_s();
        timer.finish(result.metrics);
        result.metrics.emplace_back("tokens_per_second", static_cast<double>(counted) / seconds);
        return result;
    }

  private:
    struct Parts {
        std::span<const TokenId> prompt;
        std::span<const TokenId> answer;
    };

    static update::TrainerOptions trainer_options(const Environment& environment,
                                                  const SftOptions& options) {
        return {.head = {.ids = environment.task.tokenizer.vocab_size(),
                         .temperature = 1.0F,
                         .block_bytes = environment.physical.head_bytes,
                         .logits = environment.physical.head},
                .recompute = environment.physical.recompute,
                .zero = narrow<int>(environment.physical.zero),
                .mtp = options.trains_mtp(),
                .schedule = environment.physical.schedule};
    }

    /// With train_on_prompt all tokens but the first count: they are the answer to a prompt of one
    /// token.
    [[nodiscard]] Parts parts_of(const tasks::Demonstration& example) {
        if (!options_.train_on_prompt) return {example.prompt, example.response};
        joined_.assign(example.prompt.begin(), example.prompt.end());
        joined_.insert(joined_.end(), example.response.begin(), example.response.end());
        return {std::span(joined_).first(1), std::span(joined_).subspan(1)};
    }

    /// Files have been looked at when the run began; a generator is met here.
    void require_fits(const tasks::Demonstration& example) const {
        const std::int64_t tokens = std::ssize(example.prompt) + std::ssize(example.response);
        require(tokens <= policy_.config().max_position,
                "worked example {}: prompt and response have {} tokens, but the model's context is "
                "{}: make the examples shorter ([task] teacher_max_tokens), or the context longer "
                "([model.policy] max_position_embeddings)",
                example.id, tokens, policy_.config().max_position);
    }

    static void require_finite(double loss, const tasks::Demonstration& example) {
        if (std::isfinite(loss)) return;
        throw BadNumbers(
            fmt::format("the loss of worked example {} is {}: the learning rate may be too high, "
                        "or a weight was not finite before; the last checkpoint is from before it",
                        example.id, loss));
    }

    [[nodiscard]] std::vector<tasks::Demonstration> batch_of(std::int64_t step) const {
        std::vector<tasks::Demonstration> batch;
        for (std::int64_t i = 0; i < options_.batch_size; ++i) {
            batch.push_back(examples_.demonstration(
                order_.index(step * options_.batch_size + i, size_, environment_.seed)));
        }
        return batch;
    }

    const Environment& environment_;
    SftOptions options_;
    model::Weights& policy_;
    std::unique_ptr<tasks::DemonstrationSet> own_examples_;
    const tasks::DemonstrationSet& examples_;
    tasks::RewardSet rewards_;
    rollout::Generator generator_;  // of evaluations
    update::Trainer trainer_;
    update::Schedule schedule_;
    std::optional<std::int64_t> size_;
    std::int64_t steps_ = 0;
    std::int64_t tokens_seen_ = 0;
    IdleRanks idle_ranks_;
    mutable EpochOrder order_;
    std::vector<TokenId> joined_;
};

}  // namespace

OptionList SftOptions::options() {
    OptionList list;
    list.logical("batch_size", &batch_size, "worked examples a step").at_least(1);
    list.logical("steps", &steps, "optimizer steps; 0: as many as `epochs` has").at_least(0);
    list.logical("epochs", &epochs, "passes over the examples, when `steps` is 0").at_least(0);
    list.logical("data", &data,
                 "worked examples: a reject stage before this one, or a file of JSON lines; empty: "
                 "the task's");
    list.logical("train_on_prompt", &train_on_prompt, "prompts count in the loss too");
    list.logical("mtp_loss_weight", &mtp_loss_weight,
                 "what the loss of the module that predicts one token further is multiplied by "
                 "(DeepSeek-V3's lambda: 0.3, later 0.1); 0: the module stays as it is")
        .at_least(0);
    optimizer.declare(list);
    list.logical("eval_steps", &eval_steps,
                 "evaluate after every so many steps and after the last; 0: never")
        .at_least(0);
    evaluation.declare(list, "eval_");
    evaluation.rewards.declare(list);
    return list;
}

std::vector<std::string> problems_of(const Environment& environment, const SftOptions& options) {
    std::vector<std::string> problems;
    const tasks::DemonstrationSet* examples = environment.task.demonstrations.get();
    if (!options.data.empty()) {
        // What an earlier stage will have kept is not there yet.
        const auto& before = environment.data_before;
        if (!is_stage_before(environment, options.data) && !std::filesystem::exists(options.data)) {
            problems.push_back(fmt::format(
                "data: \"{}\" is neither a file nor a reject stage before this one ({})",
                options.data,
                before.empty() ? "there is none" : fmt::format("{}", fmt::join(before, ", "))));
        }
    } else if (examples == nullptr) {
        problems.emplace_back(
            "an sft stage needs worked examples: set [task] demonstrations, or data");
    } else if (options.steps == 0 && !examples->size()) {
        problems.emplace_back("an sft stage over examples without end needs `steps`");
    }
    if (options.eval_steps > 0) {
        for (const std::string& problem : problems_of(environment, options.evaluation))
            problems.push_back("eval_steps: " + problem);
    }
    return problems;
}

std::unique_ptr<Stage> make_sft(const Environment& environment, const SftOptions& options) {
    require_none(problems_of(environment, options));
    return std::make_unique<Sft>(environment, options);
}

}  // namespace rankwise::stages
