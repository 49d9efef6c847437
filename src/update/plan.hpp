// How a minibatch is cut: bundles, chunks and waves (NUMERICS N3). Index maths only; every rank
// computes the same plan.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/base/checked.hpp"

namespace rankwise::update {

/// One sample of a minibatch, without its tokens. Samples stand in canonical order (group, sample).
struct SampleSize {
    std::int64_t group = 0;  ///< samples of one group share a prompt
    std::int64_t prompt_tokens = 0;
    std::int64_t answer_tokens = 0;
    friend bool operator==(const SampleSize&, const SampleSize&) = default;
};

/// A prompt with consecutive samples of the minibatch: [samples.begin, samples.end).
struct Bundle {
    Range samples;
    std::int64_t tokens = 0;  ///< the prompt once, and the answers
    friend bool operator==(const Bundle&, const Bundle&) = default;
};

struct PlanOptions {
    std::int64_t chunk_tokens = 2048;  ///< logical
    std::int64_t chunk_multiple = 8;   ///< logical; at least the data ranks planned for
    bool share_prompts = true;         ///< false (SFT): a bundle is one sample
};

/// Chunk c holds bundles [chunks[c].begin, chunks[c].end) and may be empty. It runs on data rank c
/// mod D in wave c / D.
struct MinibatchPlan {
    std::vector<Bundle> bundles;
    std::vector<Range> chunks;

    [[nodiscard]] std::int64_t waves(std::int64_t data_ranks) const {
        return ceil_div(static_cast<std::int64_t>(chunks.size()), data_ranks);
    }
    /// The chunk of a data rank in a wave; an empty range if it has none.
    [[nodiscard]] Range chunk(std::int64_t wave, std::int64_t data_ranks, std::int64_t rank) const;
    /// The data rank that computes each sample.
    [[nodiscard]] std::vector<std::int64_t> ranks_of_samples(std::int64_t data_ranks) const;
};

/// Bundles are filled while their tokens <= chunk_tokens, with at least one sample. With T tokens
/// in all bundles there are C chunks, the smallest multiple of chunk_multiple with T / C <=
/// chunk_tokens; a bundle of t tokens with u before it goes to chunk floor(C (2u + t) / 2T).
/// @throws InternalError if samples are not in order of groups, or a size is negative.
[[nodiscard]] MinibatchPlan plan_minibatch(std::span<const SampleSize> samples,
                                           const PlanOptions& options);

}  // namespace rankwise::update
