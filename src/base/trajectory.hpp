// The one value that flows through a step, and what a rollout file stores.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rankwise {

using TokenId = std::int32_t;

enum class Speaker : std::uint8_t { system, user, assistant, tool };
enum class FinishReason : std::uint8_t {
    unfinished,
    stop,     ///< a stop id or stop string
    length,   ///< cut off at the limit
    context,  ///< the model's context was full
};
enum class ScoreStatus : std::uint8_t { ok, none, failed };

/// A run of tokens by one speaker: tokens [begin, end) of the trajectory.
struct Segment {
    Speaker speaker = Speaker::assistant;
    std::int64_t begin = 0;
    std::int64_t end = 0;
    bool trainable = false;
    std::int64_t policy_version =
        0;  ///< optimizer steps taken by the policy that wrote it; 0 for given text
    friend bool operator==(const Segment&, const Segment&) = default;
};

struct Score {
    std::string name;
    double value = 0.0;
    std::int64_t begin = 0;  ///< span of tokens it judges: the whole answer, or one step of it
    std::int64_t end = 0;
    ScoreStatus status = ScoreStatus::ok;
    friend bool operator==(const Score&, const Score&) = default;
};

/// A prompt with one answer (or dialogue). Log-probabilities are those the sampler used (NUMERICS
/// N6).
struct Trajectory {
    static constexpr int kFormatVersion = 1;

    std::uint64_t prompt_id = 0;
    std::int64_t group = 0;       ///< position of the prompt in the step, in canonical order
    std::int32_t sample = 0;      ///< which of the prompt's samples
    std::int64_t parent = -1;     ///< trajectory it was forked from, or -1
    std::vector<TokenId> tokens;  ///< prompt and answer
    std::vector<float> logprobs;  ///< one a token; 0 for tokens that were given
    std::vector<Segment> segments;
    std::vector<Score> scores;
    std::vector<float> values;  ///< of a critic; empty without one
    double reward = 0.0;        ///< weighted sum of the scores
    double advantage = 0.0;
    FinishReason finish_reason = FinishReason::unfinished;
    std::string text;  ///< the answer in UTF-8

    /// Tokens before the first trainable one.
    [[nodiscard]] std::int64_t prompt_size() const;
    [[nodiscard]] std::int64_t answer_size() const {
        return static_cast<std::int64_t>(tokens.size()) - prompt_size();
    }
    [[nodiscard]] std::span<const TokenId> answer() const {
        return std::span(tokens).subspan(static_cast<std::size_t>(prompt_size()));
    }
    friend bool operator==(const Trajectory&, const Trajectory&) = default;
};

/// Fixed spelling in files and logs: "stop", "length", …
[[nodiscard]] const char* name_of(FinishReason reason);

}  // namespace rankwise
