#include <nlohmann/json.hpp>

#include "src/tasks/rewards/all.hpp"
#include "src/tasks/rewards/sections.hpp"

namespace rankwise::tasks {
namespace {

std::string language_of(const Problem& problem) {
    const auto found = problem.columns.find("language");
    if (found == problem.columns.end()) return "python";
    const auto value = nlohmann::json::parse(found->second);
    return value.is_string() ? value.get<std::string>() : "python";
}

}  // namespace

RewardEntry code_format_reward() {
    return {"code_format",
            "open-r1's code_format_reward: as open_r1_format, with a fenced block of the problem's "
            "`language` (python) in the answer",
            {},
            [](const Parameters&) -> RewardFunction {
                return [](const Problem& problem, const Answer& answer) -> std::optional<double> {
                    const auto body = behind_thought(answer.text);
                    if (!body) return 0.0;
                    const std::string fence = "```" + language_of(problem);
                    const std::size_t open = body->find(fence);
                    if (open == std::string_view::npos) return 0.0;
                    const std::size_t close = body->find("```", open + fence.size());
                    if (close == std::string_view::npos) return 0.0;
                    return find_answer_end(*body, close + 3) != std::string_view::npos ? 1.0 : 0.0;
                };
            }};
}

}  // namespace rankwise::tasks
