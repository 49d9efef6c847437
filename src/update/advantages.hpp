// Rewards to advantages.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rankwise::update {

/// What a reward's distance from its group's mean is divided by: the group's standard deviation +
/// 1e-4 (DeepSeekMath 2024, eq. 3), that of the whole batch + 1e-4, or nothing (Dr. GRPO).
enum class RewardScaling : std::uint8_t { group, batch, none };

/// @throws BadInput for another word than "group", "batch", "none".
[[nodiscard]] RewardScaling reward_scaling(const std::string& name);

struct Advantages {
    std::vector<double>
        values;  ///< as rewards; 0 for every member of a group whose rewards are equal
    std::vector<double> group_std;  ///< unbiased, one a group
    std::int64_t equal_groups = 0;  ///< groups of equal rewards
};

/// Group-relative advantages in double; standard deviations unbiased (n - 1).
/// @param rewards  [groups * group_size], canonical order (group, sample); finite.
/// @throws InternalError if the length is no multiple of group_size or group_size < 2.
[[nodiscard]] Advantages group_advantages(std::span<const double> rewards, std::int64_t group_size,
                                          RewardScaling scaling);

}  // namespace rankwise::update
