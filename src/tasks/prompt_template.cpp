#include "src/tasks/prompt_template.hpp"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "src/base/error.hpp"
#include "src/tasks/reward.hpp"

namespace rankwise::tasks {
namespace {

std::string own_prompt(const Problem& problem, std::string_view where) {
    require(!problem.prompt.empty(), "{}: \"prompt\" is missing or empty", where);
    return problem.prompt;
}

// The texts are part of the tasks' definition: a changed letter is another task.
std::string tinyzero(const Problem& problem, std::string_view where) {
    require(!problem.nums.empty(), "{}: \"nums\" is missing or empty", where);
    require(problem.target.has_value(), "{}: \"target\" is missing", where);
    return fmt::format(
        "A conversation between User and Assistant. The user asks a question, and the Assistant "
        "solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user "
        "with the answer.\n"
        "User: Using the numbers [{}], create an equation that equals {}. You can use basic "
        "arithmetic operations "
        "(+, -, *, /) and each number can only be used once. Show your work in <think> </think> "
        "tags. And return the "
        "final answer in <answer> </answer> tags, for example <answer> (1 + 2) / 3 </answer>.\n"
        "Assistant: Let me solve this step by step.\n<think>",
        fmt::join(problem.nums, ", "), *problem.target);
}

std::string question_of(const Problem& problem, std::string_view where) {
    if (!problem.prompt.empty()) return problem.prompt;
    for (const char* key : {"question", "problem"}) {
        const auto found = problem.columns.find(key);
        if (found == problem.columns.end()) continue;
        const auto value = nlohmann::json::parse(found->second);
        if (value.is_string()) return value.get<std::string>();
    }
    throw BadInput(fmt::format(
        "{}: none of \"prompt\", \"question\" and \"problem\" is there as text", where));
}

std::string r1_zero(const Problem& problem, std::string_view where) {
    return fmt::format(
        "A conversation between User and Assistant. The user asks a question, and the Assistant "
        "solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user "
        "with the answer. "
        "The reasoning process and answer are enclosed within <think> </think> and <answer> "
        "</answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here "
        "</answer>. User: {}. "
        "Assistant:",
        question_of(problem, where));
}

struct Entry {
    const char* name;
    std::string (*make)(const Problem&, std::string_view);
};
constexpr Entry kTemplates[] = {
    {"prompt", own_prompt}, {"tinyzero", tinyzero}, {"r1_zero", r1_zero}};

}  // namespace

PromptTemplate prompt_template(std::string_view name) {
    for (const Entry& entry : kTemplates) {
        if (entry.name == name) return entry.make;
    }
    const std::vector<std::string> names = prompt_template_names();
    const std::string nearest = nearest_name(name, names);
    throw BadInput(
        fmt::format("no prompt template is called \"{}\"{}; known are {}", name,
                    nearest.empty() ? "" : fmt::format("; did you mean \"{}\"?", nearest),
                    fmt::join(names, ", ")));
}

std::vector<std::string> prompt_template_names() {
    std::vector<std::string> names;
    for (const Entry& entry : kTemplates) names.emplace_back(entry.name);
    return names;
}

}  // namespace rankwise::tasks
