#include "src/base/error.hpp"
#include "src/tasks/rewards/all.hpp"

namespace rankwise::tasks {

RewardEntry soft_overlong_reward() {
    return {"soft_overlong",
            "DAPO (2025) eq. 13, by length in tokens: 0 up to max_length - cache, then falling to "
            "-1 at max_length",
            {{"max_length", 16384.0}, {"cache", 4096.0}},
            [](const Parameters& parameters) -> RewardFunction {
                const double longest = parameters.at("max_length");
                const double cache = parameters.at("cache");
                require(longest >= 1.0 && cache > 0.0 && cache <= longest,
                        "soft_overlong: expected 0 < cache <= max_length, found cache = {}, "
                        "max_length = {}",
                        cache, longest);
                return [longest, cache](const Problem&,
                                        const Answer& answer) -> std::optional<double> {
                    const auto length = static_cast<double>(answer.length);
                    if (length <= longest - cache) return 0.0;
                    if (length <= longest) return (longest - cache - length) / cache;
                    return -1.0;
                };
            }};
}

}  // namespace rankwise::tasks
