#include <algorithm>
#include <set>

#include "src/base/error.hpp"
#include "src/tasks/rewards/all.hpp"
#include "src/text/unicode.hpp"

namespace rankwise::tasks {
namespace {

double repeated_share(std::string_view text, std::size_t size) {
    const std::vector<std::string> words = text::split_white_space(text::lower_case(text));
    if (words.size() < size) return 0.0;
    std::set<std::vector<std::string>> different;
    const std::size_t total = words.size() - size + 1;
    for (std::size_t i = 0; i < total; ++i) {
        const auto begin = words.begin() + static_cast<std::ptrdiff_t>(i);
        different.emplace(begin, begin + static_cast<std::ptrdiff_t>(size));
    }
    return 1.0 - static_cast<double>(different.size()) / static_cast<double>(total);
}

}  // namespace

RewardEntry repetition_penalty_reward() {
    return {
        "repetition_penalty",
        "open-r1's repetition penalty: max_penalty times the share of runs of ngram_size words "
        "that came before",
        {{"ngram_size", 3.0}, {"max_penalty", -1.0}},
        [](const Parameters& parameters) -> RewardFunction {
            const double size = parameters.at("ngram_size");
            const double most = parameters.at("max_penalty");
            require(
                size >= 1.0 && size <= 1000.0 &&
                    size == static_cast<double>(static_cast<int>(size)),
                "repetition_penalty: ngram_size should be a whole number from 1 to 1000, found {}",
                size);
            require(most <= 0.0, "repetition_penalty: max_penalty should not be positive, found {}",
                    most);
            return [size, most](const Problem&, const Answer& answer) -> std::optional<double> {
                return repeated_share(answer.text, static_cast<std::size_t>(size)) * most;
            };
        }};
}

}  // namespace rankwise::tasks
