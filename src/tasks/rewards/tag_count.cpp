#include "src/tasks/rewards/all.hpp"

namespace rankwise::tasks {

RewardEntry tag_count_reward() {
    return {"tag_count",
            "open-r1's tag_count_reward: a quarter for each of the four tags that is there once, "
            "with its line ends",
            {},
            [](const Parameters&) -> RewardFunction {
                return [](const Problem&, const Answer& answer) -> std::optional<double> {
                    double reward = 0.0;
                    for (const std::string_view tag :
                         {"<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"}) {
                        if (count_of(answer.text, tag) == 1) reward += 0.25;
                    }
                    return reward;
                };
            }};
}

}  // namespace rankwise::tasks
