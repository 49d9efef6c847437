#include "src/rollout/draw.hpp"

#include <functional>
#include <limits>

namespace rankwise::rollout {
namespace {

using kernels::ConstMatrix;

/// Draws from rows of logits of this rank's vocabulary, of which the first `ids` ids count.
void choose(model::Compute& compute, const model::Weights& weights, std::int64_t ids,
            ConstMatrix logits, std::span<const kernels::SampleRow> rows,
            std::span<TokenId> tokens) {
    kernels::Device& device = compute.device;
    if (!weights.split()) {
        device.sample({.logits = logits, .ids = ids, .rows = rows, .tokens = tokens},
                      compute.stream);
        return;
    }
    const kernels::SampleRow& options = rows.front();  // the same for every row of a run
    const bool filtered = options.temperature != 0.0 &&
                          (options.top_k > 0 || options.top_p < 1.0 || options.min_p > 0.0);
    if (filtered) {
        const kernels::Arena::Scope scope(compute.arena);
        device.sample({.logits = model::gather_logits(compute, weights, logits),
                       .ids = ids,
                       .rows = rows,
                       .tokens = tokens},
                      compute.stream);
        return;
    }
    // The largest of all ranks' largest: of equal ones the lower id, which the lower rank holds.
    struct Best {
        float score = -std::numeric_limits<float>::infinity();
        TokenId token = 0;
    };
    const Range own = weights.part().vocabulary;
    std::vector<Best> mine(rows.size());
    if (!own.empty() && own.begin < ids) {
        std::vector<float> scores(rows.size());
        device.sample({.logits = logits,
                       .ids = ids,
                       .first_column = own.begin,
                       .rows = rows,
                       .tokens = tokens,
                       .scores = scores},
                      compute.stream);
        for (std::size_t i = 0; i < rows.size(); ++i) mine[i] = {scores[i], tokens[i]};
    }
    std::vector<Best> all(rows.size() * static_cast<std::size_t>(weights.part().place.degree));
    weights.tensor().all_gather("tokens", mine, all);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        Best best;
        for (std::size_t at = i; at < all.size(); at += rows.size()) {
            if (all[at].score > best.score) best = all[at];
        }
        tokens[i] = best.token;
    }
}

}  // namespace

void draw(model::Compute& compute, const model::Weights& weights, const model::HeadOptions& head,
          std::span<const kernels::SampleRow> rows, kernels::Matrix x, Drawn& drawn) {
    ensure(std::ssize(rows) == x.rows, "{} draws for {} rows", rows.size(), x.rows);
    kernels::Device& device = compute.device;
    device.rms_norm({.x = x,
                     .weight = weights.final_norm(),
                     .eps = static_cast<float>(weights.config().rms_norm_eps),
                     .y = x},
                    compute.stream);
    drawn.tokens.resize(rows.size());
    const auto draw_some = [&](Range some, ConstMatrix logits) {
        const auto at = static_cast<std::size_t>(some.begin);
        const auto size = static_cast<std::size_t>(some.size());
        const std::span<TokenId> tokens = std::span(drawn.tokens).subspan(at, size);
        choose(compute, weights, head.ids, logits, rows.subspan(at, size), tokens);
        return std::span<const TokenId>(tokens);
    };
    const DeviceSpan<float> logprob = compute.arena.take<float>(x.rows);
    model::head_logprobs(compute, weights, head, x, std::ref(draw_some),
                         {.logprob = logprob, .sum = compute.arena.take<float>(x.rows)});
    drawn.logprobs.resize(rows.size());
    device.download(cast_span<const std::byte>(DeviceSpan<const float>(logprob)),
                    std::as_writable_bytes(std::span(drawn.logprobs)), compute.stream);
}

}  // namespace rankwise::rollout
