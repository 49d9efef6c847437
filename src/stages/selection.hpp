// Which of the answers that passed all filters are kept for training.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "src/base/uint128.hpp"

namespace rankwise::stages {

/// An answer that passed.
struct Candidate {
    std::int64_t prompt = 0;  ///< place among the stage's prompts
    std::int32_t sample = 0;
    double score = 0.0;       ///< its first reward
    double right_rate = 0.0;  ///< share of the prompt's answers that are right
    UInt128 content;          ///< hash of its tokens
};

struct SelectionOptions {
    std::int64_t max_per_prompt = 1;
    bool best_first = false;  ///< of a prompt's answers those of the highest score; else the first
    std::int64_t max_kept = 0;  ///< 0: no limit
};

struct Selection {
    std::vector<std::size_t> kept;  ///< indices of candidates, in their order
    std::int64_t duplicates = 0;    ///< the same answer to the same prompt was there before
    std::int64_t over_prompt = 0;   ///< beyond max_per_prompt
    std::int64_t over_total = 0;    ///< beyond max_kept: the easiest prompts go first
};

/// Of each prompt its first different answers, or its best (equally good ones: the first); of all
/// of these, if they are too many, those whose prompts were answered rightly the least often
/// (equally hard ones: the earlier).
/// @param candidates  in canonical order (prompt, sample)
[[nodiscard]] Selection select(std::span<const Candidate> candidates,
                               const SelectionOptions& options);

}  // namespace rankwise::stages
