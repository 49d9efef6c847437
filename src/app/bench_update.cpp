#include "src/app/bench_update.hpp"

#include <algorithm>

namespace rankwise::app {

std::vector<TokenId> bench_tokens(std::int64_t count, std::int64_t vocabulary, std::int64_t seed) {
    std::vector<TokenId> tokens;
    for (std::int64_t i = 0; i < count; ++i)
        tokens.push_back(narrow<TokenId>((i * 7919 + seed * 104729) % vocabulary));
    return tokens;
}

BenchUpdate::BenchUpdate(BenchContext& context, const BenchModel& model, model::Weights& policy)
    : model_(model),
      trainer_(context.compute(), policy, context.mesh().axis(parallel::Axis::data),
               {.head = {.ids = model.config.vocab_size,
                         .block_bytes = context.physical().head_bytes,
                         .logits = context.physical().head},
                .recompute = context.physical().recompute,
                .zero = narrow<int>(context.physical().zero)},
               {}),
      plan_options_{.chunk_tokens = 2048,
                    .chunk_multiple = context.mesh().degree(parallel::Axis::data),
                    .share_prompts = false} {
    // Every token but the first is predicted.
    std::vector<update::SampleSize> sizes;
    for (std::int64_t i = 0; i < model.update_rows; ++i) {
        sequences_.push_back(bench_tokens(model.update_tokens, model.config.vocab_size, i));
        sizes.push_back({.group = i, .prompt_tokens = 1, .answer_tokens = model.update_tokens - 1});
    }
    plan_ = update::plan_minibatch(sizes, plan_options_);
}

void BenchUpdate::step() {
    const double weight =
        -1.0 / static_cast<double>(model_.update_rows * (model_.update_tokens - 1));
    const update::MinibatchCallbacks callbacks{
        .text =
            [&](std::int64_t sample) {
                const std::span<const TokenId> all = sequences_[static_cast<std::size_t>(sample)];
                return update::SampleText{all.first(1), all.subspan(1)};
            },
        .loss =
            [&](std::int64_t, std::span<const float>, std::span<const float>,
                std::span<float> coefficient) {
                std::fill(coefficient.begin(), coefficient.end(), static_cast<float>(weight));
            }};
    (void)trainer_.step(plan_, plan_options_, callbacks, 1e-5);
}

BenchWork BenchUpdate::work(const BenchContext& context) const {
    BenchWork work = update_work(model_.config, static_cast<double>(model_.update_rows),
                                 static_cast<double>(model_.update_tokens));
    work.flop /= context.world().size();
    return work;
}

RowFacts BenchUpdate::facts(const BenchContext& context) const {
    return {.work = work(context),
            .units = static_cast<double>(model_.update_rows * model_.update_tokens),
            .unit = "tokens"};
}

}  // namespace rankwise::app
