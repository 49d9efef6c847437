#include "src/stages/grpo.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "src/base/philox.hpp"
#include "src/stages/gather.hpp"
#include "src/stages/ratio_check.hpp"
#include "src/stages/redistribute.hpp"
#include "src/stages/rehearsal.hpp"
#include "src/stages/update_counts.hpp"
#include "src/update/advantages.hpp"
#include "src/update/trainer.hpp"

namespace rankwise::stages {
namespace {

constexpr const char* kReference = "reference";

/// Sums over a sample's tokens that metrics are made of.
enum Value : std::size_t { kLoss, kEntropy, kTokens, kLow, kHigh, kK3, kValues };

class Grpo final : public Stage {
  public:
    Grpo(const Environment& environment, const GrpoOptions& options)
        : environment_(environment),
          options_(options),
          loss_(options.loss()),
          policy_(environment.models.at("policy")),
          rewards_(options.rewards.rewards()),
          evaluation_rewards_(options.rewards.rewards()),
          generator_(make_generator(environment, policy_)),
          head_{.ids = environment.task.tokenizer.vocab_size(),
                .temperature = static_cast<float>(options.sampling.temperature),
                .block_bytes = environment.physical.head_bytes,
                .logits = environment.physical.head},
          trainer_(environment.compute, policy_, environment.data(),
                   {.head = head_,
                    .recompute = environment.physical.recompute,
                    .zero = narrow<int>(environment.physical.zero),
                    .schedule = environment.physical.schedule},
                   options.optimizer.adamw()),
          schedule_(options.optimizer.schedule(options.steps * options.num_minibatches *
                                               options.num_iterations)) {
        trainer_.gradient_owners().break_order(environment.faults.arrival_order);
        if (options.beta != 0.0) {
            reference_ = &environment.models.add(
                kReference,
                std::make_unique<model::Weights>(environment.compute.device, policy_.config(),
                                                 model::Passes::forward, environment.model_axes(),
                                                 environment.residence(kReference)));
            refresh_reference();
        }
    }
    ~Grpo() override {
        if (reference_ != nullptr) environment_.models.remove(kReference);
    }

    [[nodiscard]] std::int64_t steps() const override { return options_.steps; }
    [[nodiscard]] std::int64_t updates() const override { return trainer_.optimizer().steps(); }
    void watch(update::UpdateTrace* trace) override { trainer_.watch(trace); }
    [[nodiscard]] std::vector<OptimizerState> optimizers() override {
        return {{"policy", &trainer_.optimizer()}};
    }
    [[nodiscard]] std::vector<std::string> models() const override {
        if (reference_ == nullptr) return {};
        return {kReference};
    }
    [[nodiscard]] std::map<std::string, io::StateValue> state() const override {
        return {{"cursor", cursor_}, {"num_tokens", tokens_seen_}};
    }
    void restore(const std::map<std::string, io::StateValue>& state) override {
        cursor_ = std::get<std::int64_t>(state.at("cursor"));
        tokens_seen_ = std::get<std::int64_t>(state.at("num_tokens"));
    }

    void rehearse() override {
        std::vector<tasks::Problem> problems = draw_problems();
        rehearse_generation(environment_, generator_, problems, options_.num_generations,
                            options_.sampling.sampling(environment_));
        // A minibatch of answers that are all as long as they may become.
        problems.resize(
            static_cast<std::size_t>(options_.num_prompts_per_step / options_.num_minibatches));
        std::vector<std::vector<update::SampleSize>> minibatch(1);
        for (std::size_t g = 0; g < problems.size(); ++g) {
            const std::int64_t prompt = std::ssize(environment_.task.prompt_ids(problems[g]));
            const std::int64_t answer = std::min(options_.sampling.max_completion_length,
                                                 policy_.config().max_position - prompt);
            for (std::int64_t s = 0; s < options_.num_generations; ++s)
                minibatch.front().push_back({static_cast<std::int64_t>(g), prompt, answer});
        }
        const update::PlanOptions plan{.chunk_tokens = options_.optimizer.chunk_tokens,
                                       .chunk_multiple = options_.optimizer.chunk_multiple};
        if (reference_ != nullptr)
            rehearse_score(environment_, *reference_, head_, minibatch.front(), plan,
                           options_.num_minibatches * options_.num_iterations);
        rehearse_update(environment_, trainer_, minibatch, plan,
                        options_.num_minibatches * options_.num_iterations);
        if (options_.eval_steps > 0)
            rehearse_evaluation(environment_, options_.evaluation, generator_);
    }

    StepResult step(std::int64_t index) override {
        PhaseTimer timer(environment_, index);
        nan_planted_ = environment_.faults.nan_loss_at == index + 1;
        StepResult result;
        if (index == 0 && options_.eval_steps > 0)
            measure(timer, result, index);  // before anything is learnt

        timer.enter("generate");
        const ParameterDigests digests = parameter_digests(policy_, environment_.compute);
        std::vector<tasks::Problem> problems;
        Answers answers = generate(index, problems, timer);
        plant_fault(index);

        timer.enter("advantages");
        give_advantages(answers);
        timer.enter("update");
        const io::MetricLine learnt = learn(answers, index, problems, digests, timer);

        timer.enter("record");
        result.rollouts_digest = digest_of(environment_, answers.mine);
        for (const AnswerRecord& record : answers.records) tokens_seen_ += record.answer_tokens;
        append_answer_metrics(answers, options_.num_generations, result.metrics);
        result.metrics.insert(result.metrics.end(), learnt.begin(), learnt.end());
        result.metrics.emplace_back("num_tokens", tokens_seen_);
        if (result.evaluations.empty())
            result.samples = shown_samples(environment_, problems, answers.mine, 1, false);
        const double seconds = timer.total_s();
        std::int64_t tokens = 0;
        for (const AnswerRecord& record : answers.records) tokens += record.answer_tokens;
        result.rollouts = std::move(answers.mine);

        if (options_.ref_model_sync_steps > 0 && reference_ != nullptr &&
            (index + 1) % options_.ref_model_sync_steps == 0) {
            refresh_reference();
        }
        const bool last = index + 1 == options_.steps;
        if (options_.eval_steps > 0 && ((index + 1) % options_.eval_steps == 0 || last))
            measure(timer, result, index + 1);
        timer.finish(result.metrics);
        result.metrics.emplace_back("tokens_per_second", static_cast<double>(tokens) / seconds);
        return result;
    }

  private:
    void refresh_reference() {
        const model::OnDevice here(environment_.compute, *reference_);
        reference_->copy_from(policy_, environment_.compute);
    }

    void measure(PhaseTimer& timer, StepResult& result, std::int64_t steps_done) {
        EvaluationResult measured =
            evaluate(environment_, options_.evaluation, generator_, evaluation_rewards_, timer);
        result.evaluations.push_back({steps_done, std::move(measured.metrics)});
        result.samples = std::move(measured.samples);
    }

    std::vector<tasks::Problem> draw_problems() {
        std::vector<tasks::Problem> problems;
        for (std::int64_t i = 0; i < options_.num_prompts_per_step; ++i) {
            problems.push_back(environment_.task.train->problem(
                order_.index(cursor_ + i, environment_.task.train->size(), environment_.seed)));
        }
        cursor_ += options_.num_prompts_per_step;
        return problems;
    }

    /// One round of prompts; with dynamic sampling whole rounds until enough groups differ in
    /// reward, of which the first in canonical order are kept (DAPO 2025, eq. 11).
    Answers generate(std::int64_t index, std::vector<tasks::Problem>& problems, PhaseTimer& timer) {
        const auto generate_round = [&](std::span<const tasks::Problem> some) {
            return generate_answers(
                environment_, generator_, some, narrow<std::int32_t>(options_.num_generations),
                narrow<std::uint32_t>(index), options_.sampling.sampling(environment_), rewards_,
                updates(), timer);
        };
        if (!options_.dynamic_sampling) {
            problems = draw_problems();
            return generate_round(problems);
        }
        Answers kept;
        for (std::int64_t round = 0; round < options_.max_sampling_rounds; ++round) {
            timer.enter("generate");
            const std::vector<tasks::Problem> some = draw_problems();
            keep_informative(generate_round(some), some, kept, problems);
            if (std::ssize(problems) == options_.num_prompts_per_step) return kept;
        }
        throw BadNumbers(fmt::format(
            "after {} rounds of {} prompts only {} groups had answers that differ in reward, and "
            "the step needs {}: the problems are too hard or too easy for this policy; change the "
            "data, raise max_sampling_rounds, or set dynamic_sampling = false",
            options_.max_sampling_rounds, options_.num_prompts_per_step, problems.size(),
            options_.num_prompts_per_step));
    }

    void keep_informative(Answers round, std::span<const tasks::Problem> some, Answers& kept,
                          std::vector<tasks::Problem>& problems) const {
        const auto size = static_cast<std::size_t>(options_.num_generations);
        kept.score_names = round.score_names;
        kept.behaviour_names = round.behaviour_names;
        for (std::size_t g = 0;
             g < some.size() && std::ssize(problems) < options_.num_prompts_per_step; ++g) {
            const auto group = std::span(round.records).subspan(g * size, size);
            const bool equal = std::all_of(
                group.begin(), group.end(),
                [&](const AnswerRecord& record) { return record.reward == group.front().reward; });
            if (equal) continue;
            const auto place = std::ssize(problems);
            for (std::size_t s = 0; s < size; ++s) {
                const std::size_t from = g * size + s;
                kept.records.push_back(round.records[from]);
                kept.records.back().group = place;
                const auto scores =
                    std::span(round.scores)
                        .subspan(from * round.score_names.size(), round.score_names.size());
                kept.scores.insert(kept.scores.end(), scores.begin(), scores.end());
                kept.behaviour.push_back(round.behaviour[from]);
            }
            for (Trajectory& trajectory : round.mine) {
                if (trajectory.group != static_cast<std::int64_t>(g)) continue;
                kept.mine.push_back(trajectory);
                kept.mine.back().group = place;
            }
            problems.push_back(some[g]);
        }
    }

    void plant_fault(std::int64_t index) {
        if (index != environment_.faults.flip_weight_at) return;
        // The packed copy of the last rank alone: what a fault of its memory would do.
        const bool packed = environment_.faults.flip_packed;
        if (packed && environment_.data().rank() + 1 != environment_.data().size()) return;
        flip_bit(policy_, environment_.compute, packed ? WeightCopy::packed : WeightCopy::master);
    }

    void give_advantages(Answers& answers) {
        std::vector<double> rewards;
        for (const AnswerRecord& record : answers.records) rewards.push_back(record.reward);
        const update::Advantages advantages = update::group_advantages(
            rewards, options_.num_generations, update::reward_scaling(options_.scale_rewards));
        advantages_ = advantages.values;
        for (Trajectory& trajectory : answers.mine) {
            const auto at = static_cast<std::size_t>(trajectory.group * options_.num_generations +
                                                     trajectory.sample);
            trajectory.advantage = advantages_[at];
        }
    }

    /// Whether a record's tokens count in the loss.
    [[nodiscard]] bool counts(const AnswerRecord& record) const {
        return !options_.mask_truncated_completions ||
               record.finish_reason == static_cast<std::int64_t>(FinishReason::stop);
    }

    /// Groups of each minibatch of a pass, ascending.
    [[nodiscard]] std::vector<std::vector<std::int64_t>> split_groups(std::int64_t index,
                                                                      std::int64_t pass) const {
        std::vector<std::int64_t> groups(static_cast<std::size_t>(options_.num_prompts_per_step));
        std::iota(groups.begin(), groups.end(), std::int64_t{0});
        if (options_.num_minibatches > 1) {
            RandomSequence random(RandomStream(environment_.seed, Purpose::minibatch_split,
                                               static_cast<std::uint64_t>(index),
                                               narrow<std::uint32_t>(pass)));
            random.shuffle(groups);
        }
        std::vector<std::vector<std::int64_t>> split;
        const auto size =
            static_cast<std::ptrdiff_t>(options_.num_prompts_per_step / options_.num_minibatches);
        for (auto at = groups.begin(); at != groups.end(); at += size) {
            split.emplace_back(at, at + size);
            std::sort(split.back().begin(), split.back().end());
        }
        return split;
    }

    io::MetricLine learn(const Answers& answers, std::int64_t index,
                         std::span<const tasks::Problem> problems, const ParameterDigests& digests,
                         PhaseTimer& timer) {
        std::int64_t items = 0;  // tokens that count, of the whole step
        for (const AnswerRecord& record : answers.records)
            items += counts(record) ? record.answer_tokens : 0;
        Totals totals;
        const update::TokenCounts before = trainer_.counts();
        const std::int64_t updates = options_.num_minibatches * options_.num_iterations;
        for (std::int64_t pass = 0; pass < options_.num_iterations; ++pass) {
            bool fresh = pass == 0;
            for (const std::vector<std::int64_t>& groups : split_groups(index, pass)) {
                learn_minibatch(answers, index, groups, items, fresh ? &digests : nullptr, problems,
                                totals, timer);
                fresh = false;
            }
        }
        const double tokens = std::max(1.0, totals.values[kTokens]);
        io::MetricLine metrics{
            {"loss", totals.values[kLoss] / static_cast<double>(updates)},
            {"grad_norm", totals.norm / static_cast<double>(updates)},
            {"learning_rate", totals.lr},
            {"entropy", totals.values[kEntropy] / tokens},
            {"clip_ratio/low_mean", totals.values[kLow] / tokens},
            {"clip_ratio/high_mean", totals.values[kHigh] / tokens},
            {"clip_ratio/region_mean", (totals.values[kLow] + totals.values[kHigh]) / tokens},
            {"sampling/sampling_logp_difference/max", totals.logp_difference}};
        if (reference_ != nullptr) metrics.emplace_back("kl", totals.values[kK3] / tokens);
        totals.counts.append(environment_, before, trainer_.counts(), metrics);
        return metrics;
    }

    struct Totals {
        std::array<double, kValues> values{};
        double norm = 0.0;
        double lr = 0.0;
        double logp_difference = 0.0;  ///< of the first minibatch: 0, or the run has ended
        UpdateCounts counts;
    };

    void learn_minibatch(const Answers& answers, std::int64_t index,
                         std::span<const std::int64_t> groups, std::int64_t items,
                         const ParameterDigests* fresh, std::span<const tasks::Problem> problems,
                         Totals& totals, PhaseTimer& timer) {
        update::LossCounts loss_counts{
            .items = items,
            .steps_per_generation = options_.num_minibatches,
            .max_completion_length = options_.sampling.max_completion_length};
        std::vector<std::size_t> members;  // records that are computed
        std::vector<update::SampleSize> sizes;
        for (const std::int64_t group : groups) {
            for (std::int64_t s = 0; s < options_.num_generations; ++s) {
                const auto at = static_cast<std::size_t>(group * options_.num_generations + s);
                const AnswerRecord& record = answers.records[at];
                ++loss_counts.samples;
                loss_counts.tokens += counts(record) ? record.answer_tokens : 0;
                const bool learns =
                    counts(record) && (advantages_[at] != 0.0 || options_.beta != 0.0);
                if (!learns) continue;
                members.push_back(at);
                sizes.push_back({group, record.prompt_tokens, record.answer_tokens});
            }
        }
        const update::PlanOptions plan_options{.chunk_tokens = options_.optimizer.chunk_tokens,
                                               .chunk_multiple = options_.optimizer.chunk_multiple};
        const update::MinibatchPlan plan = update::plan_minibatch(sizes, plan_options);
        totals.counts.add(sizes, plan);
        idle_ranks_.look_at(environment_, plan);
        const std::vector<AnswerTokens> mine =
            redistribute(environment_.data(), answers, members, plan);
        std::vector<std::vector<TokenId>>
            prompts;  // of the problems whose answers are computed here
        prompts.resize(problems.size());
        const auto text = [&](std::int64_t sample) {
            const auto at = static_cast<std::size_t>(sample);
            const auto group = static_cast<std::size_t>(sizes[at].group);
            if (prompts[group].empty())
                prompts[group] = environment_.task.prompt_ids(problems[group]);
            return update::SampleText{prompts[group], mine[at].tokens};
        };
        std::vector<std::vector<float>> reference(members.size());
        if (reference_ != nullptr) {
            timer.enter("reference");
            score_reference(plan, text, reference);
            timer.enter("update");
        }

        std::vector<SampleValues<kValues>> values;
        RatioCheck check;
        const update::MinibatchCallbacks callbacks{
            .text = text,
            .loss = [&](std::int64_t sample, std::span<const float> logprob,
                        std::span<const float> entropy, std::span<float> coefficient) {
                const auto at = static_cast<std::size_t>(sample);
                const AnswerRecord& record = answers.records[members[at]];
                if (fresh != nullptr) check.add(record, mine[at].logprobs, logprob);
                const std::vector<double> now(logprob.begin(), logprob.end());
                const std::vector<double> old(mine[at].logprobs.begin(), mine[at].logprobs.end());
                const std::vector<double> ref(reference[at].begin(), reference[at].end());
                const std::vector<std::uint8_t> mask(logprob.size(), 1);
                const update::SampleLoss loss = update::sample_loss(
                    loss_,
                    {.logprob = now,
                     .old_logprob = old,
                     .ref_logprob = ref,
                     .mask = mask,
                     .advantage = advantages_[members[at]]},
                    update::token_weight(loss_.type, loss_counts, record.answer_tokens));
                SampleValues<kValues> sums{sample, {}};
                sums.values[kLoss] = nan_planted_ ? NAN : loss.loss;
                if (!std::isfinite(sums.values[kLoss])) {
                    throw BadNumbers(fmt::format(
                        "the loss of prompt {}, sample {} is {}: the learning rate may be too "
                        "high, or a weight was not finite before; the last checkpoint is from "
                        "before it",
                        problems[static_cast<std::size_t>(record.group)].id, record.sample,
                        sums.values[kLoss]));
                }
                for (std::size_t t = 0; t < logprob.size(); ++t) {
                    coefficient[t] = static_cast<float>(loss.gradient[t]);
                    sums.values[kEntropy] += static_cast<double>(entropy[t]);
                }
                sums.values[kTokens] = static_cast<double>(loss.tokens);
                sums.values[kLow] = static_cast<double>(loss.clipped_low);
                sums.values[kHigh] = static_cast<double>(loss.clipped_high);
                sums.values[kK3] = loss.k3_sum;
                values.push_back(sums);
            }};
        totals.lr = update::learning_rate(schedule_, trainer_.optimizer().steps());
        const auto answer_text = [&](std::int64_t group, std::int64_t sample) {
            const tasks::Problem& problem = problems[static_cast<std::size_t>(group)];
            const auto record = static_cast<std::size_t>(group * options_.num_generations + sample);
            const auto member = std::find(members.begin(), members.end(), record);
            return std::pair(requests_of(environment_, std::span(&problem, 1),
                                         narrow<std::int32_t>(options_.num_generations),
                                         narrow<std::uint32_t>(index))
                                 .front(),
                             mine[static_cast<std::size_t>(member - members.begin())].tokens);
        };
        const auto before_update = [&] {
            if (fresh == nullptr) return;
            check.require_exact(environment_, policy_, *fresh, head_,
                                options_.sampling.sampling(environment_), answer_text);
        };
        totals.norm += trainer_.step(plan, plan_options, callbacks, totals.lr, before_update);
        totals.counts.add_experts(environment_, trainer_.chunk_loads());
        for (const SampleValues<kValues>& sums : gather_by_sample(environment_.mesh, values)) {
            for (std::size_t v = 0; v < kValues; ++v) totals.values[v] += sums.values[v];
        }
    }

    /// Log-probabilities of the reference for the samples of this rank's chunks, where losses are
    /// computed: on the last pipeline rank.
    void score_reference(const update::MinibatchPlan& plan,
                         const std::function<update::SampleText(std::int64_t)>& text,
                         std::vector<std::vector<float>>& reference) {
        const model::OnDevice here(environment_.compute, *reference_);
        const std::int64_t ranks = environment_.data().size();
        std::vector<model::Microbatch> batches;
        std::vector<std::vector<std::pair<std::size_t, std::size_t>>> answers;  // of each
        for (std::int64_t wave = 0; wave < plan.waves(ranks); ++wave) {
            const Range bundles = plan.chunk(wave, ranks, environment_.data().rank());
            answers.emplace_back();
            batches.emplace_back();
            if (bundles.empty()) continue;
            update::append_bundles(batches.back(), plan, true, bundles, [&](std::int64_t sample) {
                const update::SampleText part = text(sample);
                answers.back().emplace_back(static_cast<std::size_t>(sample), part.answer.size());
                return part;
            });
        }
        const std::vector<model::Logprobs> scored =
            model::score(environment_.compute, *reference_, head_, batches);
        if (!reference_->pipeline_part().has_head) return;
        for (std::size_t b = 0; b < batches.size(); ++b) {
            std::size_t at = 0;
            for (const auto& [sample, size] : answers[b]) {
                const auto part = std::span(scored[b].logprob).subspan(at, size);
                reference[sample].assign(part.begin(), part.end());
                at += size;
            }
        }
    }

    const Environment& environment_;
    GrpoOptions options_;
    update::PolicyLossSettings loss_;
    model::Weights& policy_;
    model::Weights* reference_ = nullptr;
    tasks::RewardSet rewards_;
    tasks::RewardSet evaluation_rewards_;
    rollout::Generator generator_;
    model::HeadOptions head_;
    update::Trainer trainer_;
    update::Schedule schedule_;
    EpochOrder order_;
    IdleRanks idle_ranks_;
    std::vector<double> advantages_;
    bool nan_planted_ = false;
    std::int64_t cursor_ = options_.first_prompt;
    std::int64_t tokens_seen_ = 0;
};

}  // namespace

std::unique_ptr<Stage> make_grpo(const Environment& environment, const GrpoOptions& options) {
    require_none(problems_of(environment, options));
    return std::make_unique<Grpo>(environment, options);
}

}  // namespace rankwise::stages
