#include "src/tasks/rewards/all.hpp"

namespace rankwise::tasks {

RewardEntry format_reward() {
    return {"format",
            "1 if the answer is <think>…</think><answer>…</answer>, each tag once, and ended by "
            "itself, else 0",
            {},
            [](const Parameters&) -> RewardFunction {
                return [](const Problem&, const Answer& answer) -> std::optional<double> {
                    return ends_cleanly(answer) && parse_tags(answer.text).well_formed ? 1.0 : 0.0;
                };
            }};
}

}  // namespace rankwise::tasks
