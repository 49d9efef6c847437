#include <algorithm>

#include "src/tasks/rewards/all.hpp"
#include "src/text/regex.hpp"

namespace rankwise::tasks {

RewardEntry reasoning_steps_reward() {
    return {"reasoning_steps",
            "open-r1's reasoning_steps_reward: a third for each \"Step 1:\", \"First,\", list item "
            "…, at most 1",
            {},
            [](const Parameters&) -> RewardFunction {
                const text::Regex steps(
                    R"(Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)",
                    "reasoning_steps");
                return [steps](const Problem&, const Answer& answer) -> std::optional<double> {
                    std::vector<text::Match> matches;
                    steps.find_all(answer.text, matches);
                    return std::min(1.0, static_cast<double>(matches.size()) / 3.0);
                };
            }};
}

}  // namespace rankwise::tasks
