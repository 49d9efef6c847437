#include "src/update/plan.hpp"

namespace rankwise::update {
namespace {

std::vector<Bundle> make_bundles(std::span<const SampleSize> samples, const PlanOptions& options) {
    std::vector<Bundle> bundles;
    for (std::size_t i = 0; i < samples.size(); ++i) {
        const SampleSize& sample = samples[i];
        ensure(sample.prompt_tokens >= 0 && sample.answer_tokens >= 0,
               "sample {} has a negative size", i);
        const bool same_group = i > 0 && samples[i - 1].group == sample.group;
        ensure(i == 0 || same_group || samples[i - 1].group < sample.group,
               "samples are not in order of their groups: {} after {}", sample.group,
               i == 0 ? 0 : samples[i - 1].group);
        const bool joins = options.share_prompts && same_group &&
                           bundles.back().tokens + sample.answer_tokens <= options.chunk_tokens;
        const auto index = static_cast<std::int64_t>(i);
        if (joins) {
            bundles.back().samples.end = index + 1;
            bundles.back().tokens += sample.answer_tokens;
        } else {
            bundles.push_back({{index, index + 1}, sample.prompt_tokens + sample.answer_tokens});
        }
    }
    return bundles;
}

}  // namespace

Range MinibatchPlan::chunk(std::int64_t wave, std::int64_t data_ranks, std::int64_t rank) const {
    const std::int64_t index = wave * data_ranks + rank;
    if (index >= static_cast<std::int64_t>(chunks.size())) return {};
    return chunks[static_cast<std::size_t>(index)];
}

std::vector<std::int64_t> MinibatchPlan::ranks_of_samples(std::int64_t data_ranks) const {
    std::vector<std::int64_t> ranks;  // chunks, bundles and samples ascend together
    for (std::size_t c = 0; c < chunks.size(); ++c) {
        for (std::int64_t b = chunks[c].begin; b < chunks[c].end; ++b) {
            const Range samples = bundles[static_cast<std::size_t>(b)].samples;
            ranks.insert(ranks.end(), static_cast<std::size_t>(samples.size()),
                         static_cast<std::int64_t>(c) % data_ranks);
        }
    }
    return ranks;
}

MinibatchPlan plan_minibatch(std::span<const SampleSize> samples, const PlanOptions& options) {
    MinibatchPlan plan{make_bundles(samples, options), {}};
    std::int64_t total = 0;
    for (const Bundle& bundle : plan.bundles) total += bundle.tokens;
    if (total == 0) return plan;
    const std::int64_t chunks =
        round_up(ceil_div(total, options.chunk_tokens), options.chunk_multiple);
    plan.chunks.assign(static_cast<std::size_t>(chunks), Range{});
    std::int64_t before = 0;
    std::int64_t filled = 0;  // chunks whose begin is set
    for (std::size_t b = 0; b < plan.bundles.size(); ++b) {
        const std::int64_t tokens = plan.bundles[b].tokens;
        const std::int64_t chunk =
            std::min(chunks - 1, chunks * (2 * before + tokens) / (2 * total));
        const auto index = static_cast<std::int64_t>(b);
        for (; filled <= chunk; ++filled) {
            plan.chunks[static_cast<std::size_t>(filled)] = {index, index};
        }
        plan.chunks[static_cast<std::size_t>(chunk)].end = index + 1;
        before += tokens;
    }
    const auto end = static_cast<std::int64_t>(plan.bundles.size());
    for (; filled < chunks; ++filled) plan.chunks[static_cast<std::size_t>(filled)] = {end, end};
    return plan;
}

}  // namespace rankwise::update
