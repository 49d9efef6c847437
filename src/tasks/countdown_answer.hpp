// Countdown answers as words of its vocabulary. Private to src/tasks.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "src/tasks/answer.hpp"

namespace rankwise::tasks::countdown {

/// The answer's words, <eos> at the end if it ended by itself. Where every token is a word of the
/// vocabulary they are the tokens; else the text is read, the longest word first: white space
/// outside words is skipped, anything else is -1.
[[nodiscard]] std::vector<TokenId> words_of(const Answer& answer);

/// Whether a word is a number, or + - * /.
[[nodiscard]] bool is_number(TokenId word);
[[nodiscard]] bool is_operator(TokenId word);

/// The position of each tag in a well-formed response, as the recipe's score(): <think>, </think>,
/// <answer>, </answer> and <eos> once and in order, <answer> right behind </think>, <eos> right
/// behind </answer>, no <bos> or <pad>.
struct Tags {
    std::size_t think_end = 0;
    std::size_t answer = 0;
    std::size_t answer_end = 0;
};
[[nodiscard]] std::optional<Tags> tags_of(std::span<const TokenId> words);

/// Whether an expression (words of numbers, + - * / and parentheses, no signs) is exactly `target`,
/// computed in rationals, and uses each of `nums` exactly once. Any nesting works: there is no
/// recursion.
[[nodiscard]] bool reaches(std::span<const TokenId> expression, std::span<const std::int64_t> nums,
                           std::int64_t target);

}  // namespace rankwise::tasks::countdown
