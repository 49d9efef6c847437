#include "src/tasks/difficulty.hpp"

#include <algorithm>

#include "src/tasks/countdown.hpp"

namespace rankwise::tasks {
namespace {

/// A problem is in the first bin of which at least one in so many tries hits; else in the last.
constexpr std::array<std::int64_t, 3> kOneIn{10, 20, 30};
static_assert(kOneIn.size() + 1 == kDifficulties.size());

}  // namespace

std::optional<std::size_t> difficulty_of(const Problem& problem) {
    if (problem.task != "countdown" || problem.nums.size() != 3 || !problem.target)
        return std::nullopt;
    std::array<int, 3> nums{};
    for (std::size_t i = 0; i < nums.size(); ++i) {
        if (problem.nums[i] < 0 || problem.nums[i] > countdown::kLargest) return std::nullopt;
        nums[i] = static_cast<int>(problem.nums[i]);
    }
    const std::vector<countdown::Try> tries = countdown::tries_of(nums);
    const std::int64_t hits = std::count_if(
        tries.begin(), tries.end(),
        [&](const countdown::Try& each) { return each.second.value == *problem.target; });
    const auto* bin = std::find_if(kOneIn.begin(), kOneIn.end(), [&](std::int64_t one_in) {
        return hits * one_in >= std::ssize(tries);
    });
    return static_cast<std::size_t>(bin - kOneIn.begin());
}

}  // namespace rankwise::tasks
