#include "src/tasks/rewards/sections.hpp"

namespace rankwise::tasks {

std::optional<std::string_view> behind_thought(std::string_view text) {
    constexpr std::string_view kOpen = "<think>\n";
    constexpr std::string_view kTurn = "\n</think>\n<answer>\n";
    if (!text.starts_with(kOpen)) return std::nullopt;
    const std::size_t turn = text.find(kTurn, kOpen.size());
    if (turn == std::string_view::npos) return std::nullopt;
    return text.substr(turn + kTurn.size());
}

std::size_t find_answer_end(std::string_view text, std::size_t from) {
    constexpr std::string_view kClose = "\n</answer>";
    for (std::size_t at = text.find(kClose, from); at != std::string_view::npos;
         at = text.find(kClose, at + 1)) {
        const std::size_t end = at + kClose.size();
        if (end == text.size() || text[end] == '\n') return at;
    }
    return std::string_view::npos;
}

}  // namespace rankwise::tasks
