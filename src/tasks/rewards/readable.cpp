#include <algorithm>

#include "src/tasks/countdown.hpp"
#include "src/tasks/countdown_answer.hpp"
#include "src/tasks/rewards/all.hpp"

namespace rankwise::tasks {
namespace {

using countdown::id_of;
using countdown::is_number;
using countdown::is_operator;

/// "a+b=c,d-e=f vs 10 low," and the like, to the last word.
bool is_whole_try(std::span<const TokenId> words) {
    constexpr std::size_t kSize = 14;
    if (words.size() != kSize) return false;
    const auto is_sum = [&](std::size_t at) {
        return is_number(words[at]) && is_operator(words[at + 1]) && is_number(words[at + 2]) &&
               words[at + 3] == id_of("=") && is_number(words[at + 4]);
    };
    const TokenId verdict = words[13];
    return is_sum(0) && words[5] == id_of(",") && is_sum(6) && words[11] == id_of(" vs ") &&
           is_number(words[12]) &&
           (verdict == id_of(" low,") || verdict == id_of(" high,") || verdict == id_of(" yes"));
}

/// Share of a thought's tries that are written out.
double readable_share(std::span<const TokenId> thought) {
    std::int64_t tries = 0;
    std::int64_t whole = 0;
    while (!thought.empty()) {
        const auto end = std::find(thought.begin(), thought.end(), id_of(" wait "));
        auto words = thought.first(static_cast<std::size_t>(end - thought.begin()));
        thought = thought.subspan(std::min(words.size() + 1, thought.size()));
        if (!words.empty() && words.back() == id_of(" give up"))
            words = words.first(words.size() - 1);
        ++tries;
        whole += is_whole_try(words) ? 1 : 0;
    }
    return tries == 0 ? 0.0 : static_cast<double>(whole) / static_cast<double>(tries);
}

}  // namespace

RewardEntry readable_reward() {
    return {"readable",
            "Countdown: share of a well-formed answer's tries that are written out, two sums and "
            "their comparison with the target",
            {},
            [](const Parameters&) -> RewardFunction {
                return [](const Problem& problem, const Answer& answer) -> std::optional<double> {
                    if (problem.nums.empty()) return std::nullopt;
                    const std::vector<TokenId> words = countdown::words_of(answer);
                    const auto tags = countdown::tags_of(words);
                    if (!tags) return 0.0;
                    return readable_share(std::span(words).subspan(1, tags->think_end - 1));
                };
            }};
}

}  // namespace rankwise::tasks
