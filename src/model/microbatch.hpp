// The rows of one forward pass in training and scoring: segments without padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.hpp"
#include "src/base/trajectory.hpp"

namespace rankwise::model {

/// One output of a micro-batch: the log-probability of `target` as predicted by the hidden state of
/// `row`.
struct HeadRow {
    std::int64_t row = 0;
    TokenId target = 0;
};

/// A prompt with the answers that share it, or a sequence by itself (one answer, or none at all).
struct BundleInput {
    std::span<const TokenId> prompt;
    std::vector<std::span<const TokenId>> answers;
};

/// Rows in canonical order (NUMERICS N3): bundles in order; in a bundle the samples ascending, then
/// the prompt; tokens ascending. A sample's last token is nobody's input and has no row. Head rows:
/// bundles, samples, tokens ascending; the first token of every sample is predicted by the prompt's
/// last row, which is computed once.
struct Microbatch {
    std::vector<TokenId> ids;                         ///< [rows]
    std::vector<std::int32_t> positions;              ///< [rows]
    std::vector<kernels::AttentionSegment> segments;  ///< post-order
    std::vector<std::int64_t> norm_blocks;  ///< borders of 64-row blocks aligned in each segment
    std::vector<HeadRow> head;              ///< one for each answer token
    /// Borders of the segments' rows, and of each answer's head rows: tokens of bf16 make no pairs
    /// across them (N1).
    std::vector<std::int64_t> segment_borders, head_borders;

    // Where a module predicts one token further (mtp.hpp); else empty.
    std::vector<TokenId> following;  ///< [rows]: the token after each row's
    std::vector<HeadRow> further;    ///< as `head`: a row and the token after its following one
    std::vector<std::int64_t> further_borders;

    [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(ids.size()); }
};

/// Appends one bundle.
/// @throws InternalError if the prompt is empty: the first token of an answer would be predicted by
/// nothing.
void append(Microbatch& batch, const BundleInput& bundle);

/// A whole sequence of which every token but the first is predicted: prompt and answer as one
/// segment, with head rows for tokens [first_target, size). For SFT, and for scoring text.
/// @param further  for a module too, which predicts the same tokens but the second of the sequence
void append_sequence(Microbatch& batch, std::span<const TokenId> tokens, std::int64_t first_target,
                     bool further = false);
/// How many tokens of a sequence a module predicts.
[[nodiscard]] inline std::int64_t further_targets(std::int64_t size, std::int64_t first_target) {
    return std::max<std::int64_t>(0, size - std::max<std::int64_t>(2, first_target));
}

}  // namespace rankwise::model
