// What is asked of the generator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/base/trajectory.hpp"

namespace rankwise::rollout {

/// How answers are drawn and when they end. Everything here is logical.
struct SamplingOptions {
    double temperature = 1.0;
    std::int64_t top_k = 0;  ///< 0: off
    double top_p = 1.0;
    double min_p = 0.0;
    std::int64_t max_new_tokens = 256;
    std::vector<TokenId> stop_ids;  ///< end an answer and belong to it
    std::vector<std::string>
        stop_strings;  ///< end an answer as soon as its text holds one; the text is kept whole
    std::uint64_t seed = 0;
};

/// A prompt with its samples. Every rank knows all requests of a phase.
struct Request {
    std::uint64_t prompt_id = 0;  ///< names the random streams of its samples
    std::int64_t group = 0;       ///< position in the phase
    std::int32_t samples = 1;
    std::uint32_t step = 0;            ///< step in which the prompt was drawn (N7)
    std::int64_t expected_length = 0;  ///< of an answer, in tokens; only decides who starts first
    std::vector<TokenId> prompt;
};

}  // namespace rankwise::rollout
