#include "src/update/advantages.hpp"

#include <algorithm>
#include <cmath>

#include "src/base/checked.hpp"

namespace rankwise::update {
namespace {

constexpr double kEpsilon = 1e-4;

double mean_of(std::span<const double> values) {
    double sum = 0.0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
}

double std_of(std::span<const double> values) {
    const double mean = mean_of(values);
    double sum = 0.0;
    for (const double value : values) sum += (value - mean) * (value - mean);
    return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

}  // namespace

RewardScaling reward_scaling(const std::string& name) {
    if (name == "group") return RewardScaling::group;
    if (name == "batch") return RewardScaling::batch;
    if (name == "none") return RewardScaling::none;
    throw BadInput(fmt::format("scale_rewards is \"{}\"; expected group, batch or none", name));
}

Advantages group_advantages(std::span<const double> rewards, std::int64_t group_size,
                            RewardScaling scaling) {
    ensure(group_size >= 2, "groups of {}: an advantage needs at least two samples", group_size);
    const std::int64_t groups = div_exact(static_cast<std::int64_t>(rewards.size()), group_size);
    Advantages out;
    out.values.reserve(rewards.size());
    const double batch_std = rewards.size() > 1 ? std_of(rewards) : 0.0;
    for (std::int64_t group = 0; group < groups; ++group) {
        const auto some = rewards.subspan(static_cast<std::size_t>(group * group_size),
                                          static_cast<std::size_t>(group_size));
        const bool equal =
            std::all_of(some.begin(), some.end(), [&](double r) { return r == some[0]; });
        const double mean =
            equal ? some[0] : mean_of(some);  // a mean of equal numbers may be rounded
        const double std = equal ? 0.0 : std_of(some);
        out.group_std.push_back(std);
        out.equal_groups += equal ? 1 : 0;
        for (const double reward : some) {
            double advantage = reward - mean;
            if (scaling == RewardScaling::group) advantage /= std + kEpsilon;
            if (scaling == RewardScaling::batch) advantage /= batch_std + kEpsilon;
            out.values.push_back(advantage);
        }
    }
    return out;
}

}  // namespace rankwise::update
