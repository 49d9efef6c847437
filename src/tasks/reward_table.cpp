#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "src/base/error.hpp"
#include "src/tasks/rewards/all.hpp"

namespace rankwise::tasks {
namespace {

std::string nearest_hint(std::string_view name, std::span<const std::string> known) {
    const std::string nearest = nearest_name(name, known);
    return nearest.empty() ? "" : fmt::format("; did you mean \"{}\"?", nearest);
}

std::string listed(std::span<const std::string> names) {
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
    return list.empty() ? "none" : list;
}

const RewardEntry& entry_of(std::string_view name) {
    std::vector<std::string> known;
    for (const RewardEntry& entry : reward_table()) {
        if (entry.name == name) return entry;
        known.push_back(entry.name);
    }
    throw BadInput(fmt::format("no reward is called \"{}\"{}; known are {}", name,
                               nearest_hint(name, known), listed(known)));
}

Parameters settle(const RewardEntry& entry, const Parameters& given) {
    Parameters values = entry.defaults;
    std::vector<std::string> known;
    for (const auto& [key, value] : values) known.push_back(key);
    for (const auto& [key, value] : given) {
        require(values.contains(key), "the reward \"{}\" has no parameter \"{}\"{}; it has {}",
                entry.name, key, nearest_hint(key, known), listed(known));
        require(std::isfinite(value), "the reward \"{}\": {} should be finite, found {}",
                entry.name, key, value);
        values[key] = value;
    }
    return values;
}

constexpr std::string_view kSpace = " \t";

std::string_view trimmed(std::string_view text) {
    const std::size_t begin = text.find_first_not_of(kSpace);
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// "a=1 b=2" or "a=1, b=2".
Parameters parse_parameters(std::string_view list, std::string_view whole) {
    Parameters parameters;
    constexpr std::string_view kSeparators = " \t,;";
    for (std::size_t at = list.find_first_not_of(kSeparators); at != std::string_view::npos;) {
        const std::size_t end = std::min(list.find_first_of(kSeparators, at), list.size());
        const std::string_view item = list.substr(at, end - at);
        const std::size_t equals = std::min(item.find('='), item.size());
        double value = 0.0;
        const char* stop = item.data() + item.size();
        const auto [read, error] =
            equals < item.size() ? std::from_chars(item.data() + equals + 1, stop, value)
                                 : std::from_chars_result{item.data(), std::errc::invalid_argument};
        require(error == std::errc{} && read == stop && equals > 0,
                "reward \"{}\": expected name=number in parentheses, found \"{}\"", whole, item);
        parameters[std::string(item.substr(0, equals))] = value;
        at = list.find_first_not_of(kSeparators, end);
    }
    return parameters;
}

}  // namespace

std::span<const RewardEntry> reward_table() {
    static const std::vector<RewardEntry> table = {
        code_format_reward(),    countdown_reward(),          format_reward(),
        open_r1_format_reward(), readable_reward(),           reasoning_steps_reward(),
        repeated_tries_reward(), repetition_penalty_reward(), soft_overlong_reward(),
        tag_count_reward(),      think_format_reward(),       tinyzero_reward(),
    };
    return table;
}

RewardSpec parse_reward_spec(std::string_view text, double weight) {
    const std::string_view whole = trimmed(text);
    const std::size_t open = whole.find('(');
    const std::string_view name = trimmed(whole.substr(0, open));
    require(!name.empty(), "a reward's name is missing in \"{}\"", text);
    if (open == std::string_view::npos) return {std::string(name), {}, weight};
    require(whole.back() == ')', "reward \"{}\": the closing parenthesis is missing", whole);
    return {std::string(name),
            parse_parameters(whole.substr(open + 1, whole.size() - open - 2), whole), weight};
}

RewardFunction make_reward(const RewardSpec& spec) {
    const RewardEntry& entry = entry_of(spec.name);
    return entry.make(settle(entry, spec.parameters));
}

std::string nearest_name(std::string_view name, std::span<const std::string> known) {
    std::string best;
    std::size_t least = name.size() / 2 + 1;  // more changes than half its letters is another word
    for (const std::string& candidate : known) {
        std::vector<std::size_t> row(candidate.size() +
                                     1);  // Levenshtein's distance, a row at a time
        std::iota(row.begin(), row.end(), std::size_t{0});
        for (std::size_t i = 1; i <= name.size(); ++i) {
            std::size_t diagonal = std::exchange(row[0], i);
            for (std::size_t j = 1; j <= candidate.size(); ++j) {
                const std::size_t changed = diagonal + (name[i - 1] == candidate[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
            }
        }
        if (row.back() < least) {
            least = row.back();
            best = candidate;
        }
    }
    return best;
}

}  // namespace rankwise::tasks
