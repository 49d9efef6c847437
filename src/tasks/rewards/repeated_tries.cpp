#include "src/tasks/behaviour.hpp"
#include "src/tasks/rewards/all.hpp"

namespace rankwise::tasks {

RewardEntry repeated_tries_reward() {
    return {"repeated_tries",
            "Countdown: minus the share of an answer's tries that it made before",
            {},
            [](const Parameters&) -> RewardFunction {
                return [](const Problem& problem, const Answer& answer) -> std::optional<double> {
                    if (problem.nums.empty()) return std::nullopt;
                    double tries = 0.0;
                    double repeats = 0.0;
                    for (const auto& [name, count] : behaviour(problem, answer)) {
                        if (name == "tries") tries = count;
                        if (name == "repeats") repeats = count;
                    }
                    return repeats == 0.0 ? 0.0 : -repeats / tries;
                };
            }};
}

}  // namespace rankwise::tasks
