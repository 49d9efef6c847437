#include "src/tasks/rewards/all.hpp"
#include "src/tasks/rewards/sections.hpp"

namespace rankwise::tasks {

RewardEntry open_r1_format_reward() {
    return {"open_r1_format",
            "open-r1's format_reward: 1 if <think>, </think>, <answer>, </answer> stand on lines "
            "of their own in order, else 0",
            {},
            [](const Parameters&) -> RewardFunction {
                return [](const Problem&, const Answer& answer) -> std::optional<double> {
                    const auto body = behind_thought(answer.text);
                    return body && find_answer_end(*body, 0) != std::string_view::npos ? 1.0 : 0.0;
                };
            }};
}

}  // namespace rankwise::tasks
