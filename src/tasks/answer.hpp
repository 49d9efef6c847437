// An answer as a reward sees it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "src/base/trajectory.hpp"
#include "src/text/tokenizer.hpp"

namespace rankwise::tasks {

/// Views of one answer. The text is what the policy wrote, without the prompt and without special
/// tokens.
struct Answer {
    std::string_view text;
    std::span<const TokenId> tokens =
        {};                   ///< ids of the answer with the one that ended it; may be empty
    std::int64_t length = 0;  ///< in tokens, the one that ended it included
    FinishReason finish = FinishReason::stop;
    const text::Tokenizer* tokenizer =
        nullptr;  ///< that of `tokens`; needed only where there are tokens
};

/// The answer in a trajectory whose text is set. It refers to both.
[[nodiscard]] Answer answer_of(const Trajectory& trajectory, const text::Tokenizer* tokenizer);

/// Whether the answer ended by itself, with no special token (padding, a second BOS) before its
/// end.
[[nodiscard]] bool ends_cleanly(const Answer& answer);

/// The text between the tags of "<think>…</think><answer>…</answer>" when these are the whole text,
/// each tag is there once and in order; white space may stand between </think> and <answer>.
struct Tagged {
    bool well_formed = false;
    std::string_view thought;
    std::string_view answer;
};
[[nodiscard]] Tagged parse_tags(std::string_view text);

/// Number of places where `part` begins, not counting those that overlap one before.
[[nodiscard]] std::int64_t count_of(std::string_view text, std::string_view part);

}  // namespace rankwise::tasks
