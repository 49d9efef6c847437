#include "src/tasks/answer.hpp"

#include <algorithm>

namespace rankwise::tasks {

Answer answer_of(const Trajectory& trajectory, const text::Tokenizer* tokenizer) {
    return {.text = trajectory.text,
            .tokens = trajectory.answer(),
            .length = trajectory.answer_size(),
            .finish = trajectory.finish_reason,
            .tokenizer = tokenizer};
}

bool ends_cleanly(const Answer& answer) {
    if (answer.finish != FinishReason::stop) return false;
    if (answer.tokenizer == nullptr || answer.tokens.empty()) return true;
    const auto before_end = answer.tokens.first(answer.tokens.size() - 1);
    return std::none_of(before_end.begin(), before_end.end(),
                        [&](TokenId id) { return answer.tokenizer->is_special(id); });
}

Tagged parse_tags(std::string_view text) {
    constexpr std::string_view kThink = "<think>";
    constexpr std::string_view kThinkEnd = "</think>";
    constexpr std::string_view kAnswer = "<answer>";
    constexpr std::string_view kAnswerEnd = "</answer>";
    for (const auto tag : {kThink, kThinkEnd, kAnswer, kAnswerEnd}) {
        if (count_of(text, tag) != 1) return {};
    }
    const std::size_t think_end = text.find(kThinkEnd);
    const std::size_t answer = text.find(kAnswer);
    if (!text.starts_with(kThink) || !text.ends_with(kAnswerEnd) || answer < think_end) return {};
    const std::size_t between = think_end + kThinkEnd.size();
    if (text.substr(between, answer - between).find_first_not_of(" \t\r\n") !=
        std::string_view::npos)
        return {};
    const std::size_t begin = answer + kAnswer.size();
    return {true, text.substr(kThink.size(), think_end - kThink.size()),
            text.substr(begin, text.size() - kAnswerEnd.size() - begin)};
}

std::int64_t count_of(std::string_view text, std::string_view part) {
    std::int64_t count = 0;
    for (std::size_t at = text.find(part); at != std::string_view::npos;
         at = text.find(part, at + part.size())) {
        ++count;
    }
    return count;
}

}  // namespace rankwise::tasks
