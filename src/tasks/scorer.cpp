#include "src/tasks/scorer.hpp"

#include <algorithm>
#include <cmath>

#include "src/base/error.hpp"

namespace rankwise::tasks {
namespace {

template <class Map>
auto take(Map& open, Ticket ticket) {
    auto found = open.find(static_cast<std::int64_t>(ticket));
    ensure(found != open.end(), "score ticket {} is not open", static_cast<std::int64_t>(ticket));
    auto value = std::move(found->second);
    open.erase(found);
    return value;
}

}  // namespace

Ticket RuleScorer::submit(std::span<const ScoreRequest> requests) {
    std::vector<ScoreResult> results;
    results.reserve(requests.size());
    for (const ScoreRequest& request : requests) {
        const std::optional<double> value = function_(*request.problem, request.answer);
        results.push_back({value.value_or(0.0), value ? ScoreStatus::ok : ScoreStatus::none});
    }
    const std::int64_t ticket = next_++;
    open_.emplace(ticket, std::move(results));
    return Ticket{ticket};
}

std::vector<ScoreResult> RuleScorer::collect(Ticket ticket) {
    return take(open_, ticket);
}

RewardSet::RewardSet(std::span<const RewardSpec> specs) {
    require(!specs.empty(), "no reward is named; name at least one");
    for (const RewardSpec& spec : specs) {
        add(spec.name, spec.weight, std::make_unique<RuleScorer>(make_reward(spec)));
    }
}

void RewardSet::add(std::string name, double weight, std::unique_ptr<Scorer> scorer) {
    require(std::isfinite(weight), "the weight of the reward \"{}\" should be finite, found {}",
            name, weight);
    const bool fresh = std::none_of(members_.begin(), members_.end(),
                                    [&](const Member& member) { return member.name == name; });
    require(fresh, "the reward \"{}\" is named twice", name);
    members_.push_back({std::move(name), weight, std::move(scorer)});
}

Ticket RewardSet::submit(std::span<const ScoreRequest> requests) {
    Open open;
    for (const ScoreRequest& request : requests) {
        open.asked.push_back({request.problem->id, request.sample, request.answer.length});
    }
    for (const Member& member : members_) open.tickets.push_back(member.scorer->submit(requests));
    const std::int64_t ticket = next_++;
    open_.emplace(ticket, std::move(open));
    return Ticket{ticket};
}

std::vector<Judgement> RewardSet::collect(Ticket ticket) {
    const Open open = take(open_, ticket);
    std::vector<Judgement> judgements(open.asked.size());
    for (std::size_t m = 0; m < members_.size(); ++m) {
        const Member& member = members_[m];
        const std::vector<ScoreResult> results = member.scorer->collect(open.tickets[m]);
        ensure(results.size() == open.asked.size(),
               "the reward \"{}\" gives {} results for {} answers", member.name, results.size(),
               open.asked.size());
        for (std::size_t i = 0; i < results.size(); ++i) {
            const auto& [value, status] = results[i];
            const Asked& asked = open.asked[i];
            if (status == ScoreStatus::ok && !std::isfinite(value)) {
                throw BadNumbers(fmt::format(
                    "the reward \"{}\" of prompt {}, sample {} is {}; expected a finite number",
                    member.name, asked.prompt_id, asked.sample, value));
            }
            judgements[i].scores.push_back({member.name, value, 0, asked.length, status});
            if (status != ScoreStatus::ok) continue;
            judgements[i].reward += member.weight * value;
            if (!std::isfinite(judgements[i].reward)) {
                throw BadNumbers(fmt::format(
                    "the reward of prompt {}, sample {} is {} when \"{}\" is added with weight {}; "
                    "expected a finite number",
                    asked.prompt_id, asked.sample, judgements[i].reward, member.name,
                    member.weight));
            }
        }
    }
    return judgements;
}

std::vector<Judgement> RewardSet::judge(std::span<const ScoreRequest> requests) {
    return collect(submit(requests));
}

std::vector<std::string> RewardSet::names() const {
    std::vector<std::string> names;
    for (const Member& member : members_) names.push_back(member.name);
    return names;
}

std::vector<double> RewardSet::weights() const {
    std::vector<double> weights;
    for (const Member& member : members_) weights.push_back(member.weight);
    return weights;
}

RewardSet make_reward_set(std::span<const std::string> rewards, std::span<const double> weights) {
    require(weights.empty() || weights.size() == rewards.size(),
            "{} rewards are named, but {} weights are given", rewards.size(), weights.size());
    std::vector<RewardSpec> specs;
    for (std::size_t i = 0; i < rewards.size(); ++i) {
        specs.push_back(parse_reward_spec(rewards[i], weights.empty() ? 1.0 : weights[i]));
    }
    return RewardSet(specs);
}

}  // namespace rankwise::tasks
