// Rewards over JSON lines of answers.
#pragma once

#include <cstdint>
#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "src/tasks/scorer.hpp"

namespace rankwise::tasks {

struct GradeSummary {
    std::int64_t rows = 0;
    double mean_reward = 0.0;  ///< over all rows
    struct Reward {
        std::string name;
        std::int64_t ok = 0;    ///< rows with a value
        std::int64_t none = 0;  ///< rows that lack what the reward needs
        double mean = 0.0;      ///< over rows with a value
    };
    std::vector<Reward> rewards;
};

/// Judges a row at a time. A row is a Problem's line with "completion" (or "response"): the
/// answer's text; optionally "length", its tokens (else the tokenizer's count, or 0 without one),
/// and "finish_reason" ("stop" if missing). Writes for each row {"line", "id", "scores": {NAME:
/// value or null}, "reward"}.
/// @param in_name    for messages
/// @param tokenizer  may be nullptr
/// @throws BadInput (name, line, reason) for a malformed row or an empty input, EnvironmentError if
/// writing fails.
GradeSummary grade(std::istream& in, const std::string& in_name, RewardSet& rewards,
                   std::ostream& out, const text::Tokenizer* tokenizer = nullptr);

}  // namespace rankwise::tasks
