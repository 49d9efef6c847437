#include <algorithm>
#include <charconv>

#include "src/base/error.hpp"
#include "src/tasks/python_expression.hpp"
#include "src/tasks/rewards/all.hpp"
#include "src/text/regex.hpp"

namespace rankwise::tasks {
namespace {

// Python's str.strip(): what str.isspace() holds for.
std::string_view strip(std::string_view text) {
    static const text::Regex outer(R"(\A[\s\x{1c}-\x{1f}]+|[\s\x{1c}-\x{1f}]+\z)", "tinyzero");
    std::vector<text::Match> matches;
    outer.find_all(text, matches);
    std::size_t begin = 0;
    std::size_t end = text.size();
    for (const auto& match : matches) {
        if (match.begin == 0) begin = match.end;
        if (match.end == text.size()) end = std::max(begin, match.begin);
    }
    return text.substr(begin, end - begin);
}

// The last "<answer>…</answer>" on the last line behind the assistant's mark.
std::optional<std::string_view> extract(std::string_view whole) {
    std::size_t skipped = std::string_view::npos;
    for (const std::string_view mark : {"Assistant:", "<|im_start|>assistant"}) {
        const std::size_t at = whole.find(mark);
        if (at == std::string_view::npos) continue;
        skipped = at + mark.size();
        break;
    }
    if (skipped == std::string_view::npos) return std::nullopt;
    whole.remove_prefix(skipped);
    if (const std::size_t line = whole.rfind('\n'); line != std::string_view::npos)
        whole.remove_prefix(line + 1);
    constexpr std::string_view kOpen = "<answer>";
    constexpr std::string_view kClose = "</answer>";
    std::optional<std::string_view> last;
    for (std::size_t at = whole.find(kOpen); at != std::string_view::npos;
         at = whole.find(kOpen, at)) {
        at += kOpen.size();
        const std::size_t end = whole.find(kClose, at);
        if (end == std::string_view::npos) break;
        last = whole.substr(at, end - at);
        at = end + kClose.size();
    }
    if (!last) return std::nullopt;
    return strip(*last);
}

// Every run of digits as a number; nothing if one is too long to be among those given.
std::optional<std::vector<std::int64_t>> integers_in(std::string_view text) {
    constexpr std::string_view kDigits = "0123456789";
    std::vector<std::int64_t> numbers;
    for (std::size_t at = text.find_first_of(kDigits); at != std::string_view::npos;) {
        const std::size_t end = std::min(text.find_first_not_of(kDigits, at), text.size());
        std::int64_t number = 0;
        const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, number);
        if (error != std::errc{}) return std::nullopt;
        numbers.push_back(number);
        at = text.find_first_of(kDigits, end);
    }
    return numbers;
}

bool uses_each_once(std::string_view expression, std::vector<std::int64_t> given) {
    auto used = integers_in(expression);
    if (!used) return false;
    std::sort(used->begin(), used->end());
    std::sort(given.begin(), given.end());
    return *used == given;
}

bool reaches(std::string_view expression, std::int64_t target) {
    constexpr double kTolerance = 1e-5;
    const auto distance = python_distance(expression, target);
    return distance && *distance < kTolerance;
}

}  // namespace

RewardEntry tinyzero_reward() {
    return {"tinyzero",
            "TinyZero's Countdown: 1 if right, format_score for another expression in <answer> "
            "tags on the last line, else 0",
            {{"format_score", 0.1}},
            [](const Parameters& parameters) -> RewardFunction {
                const double format_score = parameters.at("format_score");
                return [format_score](const Problem& problem,
                                      const Answer& answer) -> std::optional<double> {
                    if (problem.nums.empty() || !problem.target) return std::nullopt;
                    const std::string whole = problem.prompt + std::string(answer.text);
                    const auto expression = extract(whole);
                    if (!expression) return 0.0;
                    const bool right = uses_each_once(*expression, problem.nums) &&
                                       reaches(*expression, *problem.target);
                    return right ? 1.0 : format_score;
                };
            }};
}

}  // namespace rankwise::tasks
