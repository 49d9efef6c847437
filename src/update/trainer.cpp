#include "src/update/trainer.hpp"

namespace rankwise::update {
namespace {

/// The weights' module is made ready before anything is laid out by what is trained.
TrainerOptions with_module(model::Compute& compute, model::Weights& weights,
                           const TrainerOptions& options) {
    if (options.mtp) weights.use_mtp(compute, true);
    return options;
}

/// Shows a trace what layers compute, while it lives.
class Watched {
  public:
    Watched(model::Compute& compute, UpdateTrace* trace) : compute_(compute), trace_(trace) {
        if (trace == nullptr) return;
        trace->begin_update();
        compute.probe = [trace, &compute](const model::Probed& value) {
            trace->layer(value, compute);
        };
    }
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;
    ~Watched() {
        if (trace_ != nullptr) compute_.probe = nullptr;
    }

  private:
    model::Compute& compute_;
    UpdateTrace* trace_;
};

}  // namespace

Trainer::Trainer(model::Compute& compute, model::Weights& weights, parallel::Communicator& data,
                 const TrainerOptions& options, const AdamwOptions& adamw)
    : compute_(compute),
      weights_(weights),
      data_(data),
      options_(with_module(compute, weights, options)),
      shard_map_(weights.shapes(), data.size(), weights.frozen(), weights.data_ranks()),
      owners_(compute.tools(), data, weights.shapes(), shard_map_),
      gradients_(compute, weights, owners_),
      adamw_(compute, weights, shard_map_, data, options.zero, adamw) {
    const model::PipelinePart& part = weights.pipeline_part();
    const bool module_looks_up = options.mtp && part.has_head && !part.has_embedding;
    if (!part.looks_up_elsewhere() && !module_looks_up) return;
    // Gradients of embedding rows are summed here, and belong to the rank that has the embedding.
    std::vector<Shape> there(weights.shapes().size());
    there[static_cast<std::size_t>(weights.parameters().embedding)] =
        Shape::matrix(weights.part().vocabulary.size(), weights.config().hidden);
    owners_.rows_belong_to(parallel::ShardMap(there, data.size()));
}

Trainer::~Trainer() {
    if (options_.mtp) weights_.use_mtp(compute_, false);
}

void append_bundles(model::Microbatch& batch, const MinibatchPlan& plan, bool share_prompts,
                    Range bundles, const std::function<SampleText(std::int64_t)>& text, bool mtp) {
    ensure(!mtp || !share_prompts,
           "samples that share prompts have no module that predicts further");
    for (std::int64_t b = bundles.begin; b < bundles.end; ++b) {
        const Range samples = plan.bundles[static_cast<std::size_t>(b)].samples;
        if (!share_prompts) {
            const SampleText sample = text(samples.begin);
            std::vector<TokenId> tokens(sample.prompt.begin(), sample.prompt.end());
            tokens.insert(tokens.end(), sample.answer.begin(), sample.answer.end());
            model::append_sequence(batch, tokens, std::ssize(sample.prompt), mtp);
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

Trainer::Chunk Trainer::make_chunk(const MinibatchPlan& plan, bool share_prompts, Range bundles,
                                   const MinibatchCallbacks& callbacks) {
    Chunk chunk;
    std::int64_t unshared = 0;
    const auto text_of = [&](std::int64_t sample) {
        const SampleText text = callbacks.text(sample);
        const auto tokens = static_cast<std::int64_t>(text.prompt.size() + text.answer.size());
        const std::int64_t further =
            options_.mtp ? model::further_targets(tokens, std::ssize(text.prompt)) : 0;
        chunk.answers.push_back({sample, text.answer.size(), static_cast<std::size_t>(further)});
        unshared += tokens - 1;
        return text;
    };
    append_bundles(chunk.batch, plan, share_prompts, bundles, text_of, options_.mtp);
    counts_.rows += chunk.batch.rows();
    counts_.head_rows += std::ssize(chunk.batch.head) + std::ssize(chunk.batch.further);
    counts_.shared_rows += unshared - chunk.batch.rows();
    return chunk;
}

std::vector<float> Trainer::losses_of(const Chunk& chunk, const model::Logprobs& values,
                                      const MinibatchCallbacks& callbacks) {
    std::vector<float> coefficient(values.logprob.size(), 0.0F);
    std::size_t at = 0;
    for (const Chunk::Answer& answer : chunk.answers) {
        const std::size_t size = answer.tokens;
        callbacks.loss(answer.sample, std::span(values.logprob).subspan(at, size),
                       std::span(values.entropy).subspan(at, size),
                       std::span(coefficient).subspan(at, size));
        at += size;
    }
    for (const Chunk::Answer& answer : chunk.answers) {
        if (answer.further == 0) continue;
        callbacks.mtp_loss(answer.sample, std::span(values.logprob).subspan(at, answer.further),
                           std::span(coefficient).subspan(at, answer.further));
        at += answer.further;
    }
    ensure(at == values.logprob.size(), "{} head rows for {} answer tokens", values.logprob.size(),
           at);
    return coefficient;
}

double Trainer::step(const MinibatchPlan& plan, const PlanOptions& plan_options,
                     const MinibatchCallbacks& callbacks, double lr,
                     const std::function<void()>& before_update) {
    const std::int64_t ranks = data_.size();
    std::vector<std::unique_ptr<Chunk>> chunks;  // by wave
    std::vector<const model::Microbatch*> batches;
    for (std::int64_t wave = 0; wave < plan.waves(ranks); ++wave) {
        const Range bundles = plan.chunk(wave, ranks, data_.rank());
        chunks.push_back(bundles.empty()
                             ? nullptr
                             : std::make_unique<Chunk>(make_chunk(plan, plan_options.share_prompts,
                                                                  bundles, callbacks)));
        batches.push_back(chunks.back() ? &chunks.back()->batch : nullptr);
    }
    // The copies follow from the first step on.
    if (options_.mtp && adamw_.steps() == 0) weights_.renew_mtp_copies(compute_);
    gradients_.begin();
    PipelineWork work{.batches = batches,
                      .loss =
                          [&](std::int64_t wave, const model::Logprobs& values) {
                              std::vector<float> coefficient = losses_of(
                                  *chunks[static_cast<std::size_t>(wave)], values, callbacks);
                              if (trace_ != nullptr) trace_->head(values, coefficient);
                              return coefficient;
                          },
                      .begin_wave =
                          [&](std::int64_t wave) {
                              std::vector<bool> contributes;
                              for (std::int64_t rank = 0; rank < ranks; ++rank)
                                  contributes.push_back(!plan.chunk(wave, ranks, rank).empty());
                              gradients_.begin_wave(std::move(contributes));
                          }};
    if (trace_ != nullptr) {
        work.enter_chunk = [&](std::int64_t wave) {
            trace_->enter_chunk(wave * ranks + data_.rank());
        };
    }
    {
        const Watched watched(compute_, trace_);
        run_pipeline(compute_, weights_, options_.head, options_.schedule, options_.recompute, work,
                     gradients_);
    }
    gradients_.finish();
    if (trace_ != nullptr) trace_->gradients(owners_, compute_);
    if (before_update) before_update();
    const double rate = adamw_.options().router_bias_rate;
    if (rate > 0.0) level_router_biases(compute_, weights_, data_, gradients_.expert_loads(), rate);
    const double norm = adamw_.step(owners_, lr);
    if (options_.mtp) weights_.renew_mtp_copies(compute_);
    return norm;
}

}  // namespace rankwise::update
