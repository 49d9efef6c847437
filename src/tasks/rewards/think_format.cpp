#include "src/tasks/rewards/all.hpp"

namespace rankwise::tasks {

RewardEntry think_format_reward() {
    return {"think_format",
            "TRL's think_format_reward: 1 if the answer begins with <think>, once, and has "
            "</think> behind it, else 0",
            {},
            [](const Parameters&) -> RewardFunction {
                return [](const Problem&, const Answer& answer) -> std::optional<double> {
                    constexpr std::string_view kThink = "<think>";
                    const bool once =
                        answer.text.starts_with(kThink) && count_of(answer.text, kThink) == 1;
                    return once && answer.text.find("</think>") != std::string_view::npos ? 1.0
                                                                                          : 0.0;
                };
            }};
}

}  // namespace rankwise::tasks
