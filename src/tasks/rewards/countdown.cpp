#include "src/tasks/countdown_answer.hpp"
#include "src/tasks/rewards/all.hpp"

namespace rankwise::tasks {

RewardEntry countdown_reward() {
    return {
        "countdown",
        "1 if a well-formed answer's expression is exactly the target and uses each number once, "
        "else 0",
        {},
        [](const Parameters&) -> RewardFunction {
            return [](const Problem& problem, const Answer& answer) -> std::optional<double> {
                if (problem.nums.empty() || !problem.target) return std::nullopt;
                const std::vector<TokenId> words = countdown::words_of(answer);
                const auto tags = countdown::tags_of(words);
                if (!tags) return 0.0;
                const auto expression =
                    std::span(words).subspan(tags->answer + 1, tags->answer_end - tags->answer - 1);
                return countdown::reaches(expression, problem.nums, *problem.target) ? 1.0 : 0.0;
            };
        }};
}

}  // namespace rankwise::tasks
