// Trajectories with every field in use.
#pragma once

#include <string>
#include <vector>

#include "io/rollouts.hpp"

namespace rankwise::io::test {

inline RolloutHeader sample_header(std::int64_t step) {
    return {.stage = "zero",
            .step = step,
            .seed = 0xFFFF'0000'0000'0001U,
            .policy_version = 12,
            .options_digest = {1, 2},
            .rollouts_digest = {0xABCD, 0xEF00'0000'0000'0000U}};
}

inline std::vector<Trajectory> sample_trajectories(int count) {
    std::vector<Trajectory> all;
    for (int i = 0; i < count; ++i) {
        Trajectory t;
        t.prompt_id = 0x8000'0000'0000'0000U + static_cast<std::uint64_t>(i / 4);
        t.group = i / 4;
        t.sample = i % 4;
        t.parent = i % 3 - 1;
        for (int token = 0; token < 5 + i % 7; ++token) {
            t.tokens.push_back(100 * i + token);
            t.logprobs.push_back(token < 3 ? 0.0F : -0.1F * static_cast<float>(token));
        }
        const auto end = static_cast<std::int64_t>(t.tokens.size());
        t.segments = {{Speaker::user, 0, 3, false, 0}, {Speaker::assistant, 3, end, true, 12}};
        if (i % 2 == 0) t.scores.push_back({"format", 1.0, 3, end, ScoreStatus::ok});
        t.scores.push_back({"accuracy", 0.1 * i, 3, end, ScoreStatus::failed});
        t.scores.push_back({"step", -1.0, 3, 4, ScoreStatus::none});
        t.scores.push_back({"step", 2.0, 4, end, ScoreStatus::ok});
        if (i % 5 == 0) t.values.assign(t.tokens.size(), 0.5F);
        t.reward = 0.1 * i;
        t.advantage = -1.0 / (i + 1);
        t.finish_reason = i % 2 == 0 ? FinishReason::stop : FinishReason::length;
        t.text = i == 1 ? std::string("nul\0 and größe\0", 17) : fmt::format("answer {}: 数学", i);
        all.push_back(std::move(t));
    }
    return all;
}

/// Writes `trajectories` as two parts. @return the step's path.
inline Path write_sample_rollouts(FileSystem& fs, const Path& dir, std::int64_t step,
                                  const std::vector<Trajectory>& trajectories) {
    const Path tmp = dir / fmt::format("step_{:08}.tmp", step);
    fs.remove_tree(tmp);
    fs.create_directories(tmp);
    const std::span all(trajectories);
    const RolloutHeader header = sample_header(step);
    const std::size_t first = all.size() / 3;
    const std::vector<RolloutPart> parts{write_rollout_part(fs, tmp, 1, header, all.subspan(first)),
                                         write_rollout_part(fs, tmp, 0, header, all.first(first))};
    return commit_rollouts(fs, dir, header, parts);
}

}  // namespace rankwise::io::test
