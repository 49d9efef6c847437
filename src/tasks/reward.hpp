// Rule rewards: a table of names and pure functions.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/tasks/answer.hpp"
#include "src/tasks/problem.hpp"

namespace rankwise::tasks {

/// Judges an answer from (problem, answer) alone: no clock, no file, no state. Nothing if the
/// problem lacks what it would judge by (the score's status is then `none`). May be called from
/// several threads at once.
using RewardFunction = std::function<std::optional<double>(const Problem&, const Answer&)>;

/// Values of a reward's parameters by name.
using Parameters = std::map<std::string, double, std::less<>>;

/// A row of the table. A new reward is one file in rewards/ and one line in reward_table.cpp.
struct RewardEntry {
    std::string name;
    std::string help;     ///< one line: what it gives, and who calls it so
    Parameters defaults;  ///< every parameter that it has
    /// @param parameters  defaults with the recipe's values put over them
    /// @throws BadInput for a value out of range
    std::function<RewardFunction(const Parameters& parameters)> make;
};

/// All rewards, by name.
[[nodiscard]] std::span<const RewardEntry> reward_table();

/// A reward as a recipe writes it: "soft_overlong(max_length=256 cache=96)", "format".
struct RewardSpec {
    std::string name;
    Parameters parameters;
    double weight = 1.0;
    friend bool operator==(const RewardSpec&, const RewardSpec&) = default;
};

/// @throws BadInput if the text has another form.
[[nodiscard]] RewardSpec parse_reward_spec(std::string_view text, double weight = 1.0);

/// The function of a reward with its parameters.
/// @throws BadInput for an unknown name or parameter (lists those known and names the nearest), or
/// a value out of range.
[[nodiscard]] RewardFunction make_reward(const RewardSpec& spec);

/// Of `known` the one with the fewest changes of a letter to `name`; empty if none is near.
[[nodiscard]] std::string nearest_name(std::string_view name, std::span<const std::string> known);

}  // namespace rankwise::tasks
