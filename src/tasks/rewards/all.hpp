// The rewards of this folder, one function a file. The table in reward_table.cpp lists them.
#pragma once

#include "src/tasks/reward.hpp"

namespace rankwise::tasks {

RewardEntry code_format_reward();
RewardEntry countdown_reward();
RewardEntry format_reward();
RewardEntry open_r1_format_reward();
RewardEntry readable_reward();
RewardEntry reasoning_steps_reward();
RewardEntry repeated_tries_reward();
RewardEntry repetition_penalty_reward();
RewardEntry soft_overlong_reward();
RewardEntry tag_count_reward();
RewardEntry think_format_reward();
RewardEntry tinyzero_reward();

}  // namespace rankwise::tasks
