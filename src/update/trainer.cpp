#include "src/update/trainer.hpp"

namespace rankwise::update {

Trainer::Trainer(model::Compute& compute, model::Weights& weights, parallel::Communicator& data,
                 const TrainerOptions& options, const AdamwOptions& adamw)
    : compute_(compute),
      weights_(weights),
      data_(data),
      options_(options),
      shard_map_(weights.shapes(), data.size()),
      owners_(compute.tools(), data, weights.shapes(), shard_map_),
      gradients_(compute, weights, owners_),
      adamw_(compute, weights, shard_map_, data, options.zero, adamw) {}

void append_bundles(model::Microbatch& batch, const MinibatchPlan& plan, bool share_prompts,
                    Range bundles, const std::function<SampleText(std::int64_t)>& text) {
    for (std::int64_t b = bundles.begin; b < bundles.end; ++b) {
        const Range samples = plan.bundles[static_cast<std::size_t>(b)].samples;
        if (!share_prompts) {
            const SampleText sample = text(samples.begin);
            std::vector<TokenId> tokens(sample.prompt.begin(), sample.prompt.end());
            tokens.insert(tokens.end(), sample.answer.begin(), sample.answer.end());
            model::append_sequence(batch, tokens, static_cast<std::int64_t>(sample.prompt.size()));
            continue;
        }
        model::BundleInput bundle;
        for (std::int64_t s = samples.begin; s < samples.end; ++s) {
            const SampleText sample = text(s);
            bundle.prompt = sample.prompt;
            bundle.answers.push_back(sample.answer);
        }
        model::append(batch, bundle);
    }
}

void Trainer::run_chunk(const MinibatchPlan& plan, bool share_prompts, Range bundles,
                        const MinibatchCallbacks& callbacks) {
    model::Microbatch batch;
    std::vector<std::pair<std::int64_t, std::size_t>> answers;  // sample and its answer's length
    std::int64_t unshared = 0;
    append_bundles(batch, plan, share_prompts, bundles, [&](std::int64_t sample) {
        const SampleText text = callbacks.text(sample);
        answers.emplace_back(sample, text.answer.size());
        unshared += static_cast<std::int64_t>(text.prompt.size() + text.answer.size()) - 1;
        return text;
    });
    model::TrainingPass pass(compute_, weights_, options_.head, batch, options_.recompute);
    const model::Logprobs values = pass.logprobs();
    std::vector<float> coefficient(values.logprob.size(), 0.0F);
    std::size_t at = 0;
    for (const auto& [sample, size] : answers) {
        callbacks.loss(sample, std::span(values.logprob).subspan(at, size),
                       std::span(values.entropy).subspan(at, size),
                       std::span(coefficient).subspan(at, size));
        at += size;
    }
    ensure(at == values.logprob.size(), "{} head rows for {} answer tokens", values.logprob.size(),
           at);
    pass.backward(coefficient, gradients_);
    counts_.rows += batch.rows();
    counts_.head_rows += static_cast<std::int64_t>(batch.head.size());
    counts_.shared_rows += unshared - batch.rows();
}

double Trainer::step(const MinibatchPlan& plan, const PlanOptions& plan_options,
                     const MinibatchCallbacks& callbacks, double lr,
                     const std::function<void()>& before_update) {
    const std::int64_t ranks = data_.size();
    gradients_.begin();
    for (std::int64_t wave = 0; wave < plan.waves(ranks); ++wave) {
        std::vector<bool> contributes;
        for (std::int64_t rank = 0; rank < ranks; ++rank) {
            contributes.push_back(!plan.chunk(wave, ranks, rank).empty());
        }
        gradients_.begin_wave(std::move(contributes));
        const Range bundles = plan.chunk(wave, ranks, data_.rank());
        if (bundles.empty()) {
            model::follow_training_pass(compute_, weights_, options_.recompute, gradients_);
        } else {
            run_chunk(plan, plan_options.share_prompts, bundles, callbacks);
        }
    }
    gradients_.finish();
    if (before_update) before_update();
    return adamw_.step(owners_, lr);
}

}  // namespace rankwise::update
