#include "src/tasks/grade.hpp"

#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/base/error.hpp"
#include "src/tasks/json_rows.hpp"

namespace rankwise::tasks {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kMostLineBytes = std::int64_t{64} << 20U;

/// Takes a column out of a row.
std::optional<Json> take_column(Problem& problem, const char* key) {
    const auto found = problem.columns.find(key);
    if (found == problem.columns.end()) return std::nullopt;
    Json value = Json::parse(found->second);
    problem.columns.erase(found);
    return value;
}

std::string completion_of(Problem& problem, const std::string& where) {
    for (const char* key : {"completion", "response"}) {
        const auto value = take_column(problem, key);
        if (!value) continue;
        require(value->is_string(), "{}: \"{}\" should be text, found {}", where, key,
                value->type_name());
        return value->get<std::string>();
    }
    throw BadInput(fmt::format("{}: neither \"completion\" nor \"response\" is there", where));
}

FinishReason finish_of(Problem& problem, const std::string& where) {
    const auto value = take_column(problem, "finish_reason");
    if (!value) return FinishReason::stop;
    constexpr std::array kReasons = {FinishReason::unfinished, FinishReason::stop,
                                     FinishReason::length, FinishReason::context};
    for (const FinishReason reason : kReasons) {
        if (value->is_string() && value->get<std::string>() == name_of(reason)) return reason;
    }
    throw BadInput(
        fmt::format("{}: \"finish_reason\" should be stop, length, context or unfinished, found {}",
                    where, value->dump()));
}

std::int64_t length_of(Problem& problem, const std::string& text, const text::Tokenizer* tokenizer,
                       const std::string& where) {
    const auto value = take_column(problem, "length");
    if (!value) return tokenizer == nullptr ? 0 : std::ssize(tokenizer->encode(text));
    require(value->is_number_unsigned(), "{}: \"length\" should be a number of tokens, found {}",
            where, value->dump());
    return value->get<std::int64_t>();
}

void add_to(GradeSummary& summary, const Judgement& judgement) {
    ++summary.rows;
    summary.mean_reward += judgement.reward;
    for (std::size_t i = 0; i < judgement.scores.size(); ++i) {
        GradeSummary::Reward& reward = summary.rewards[i];
        const bool ok = judgement.scores[i].status == ScoreStatus::ok;
        (ok ? reward.ok : reward.none) += 1;
        if (ok) reward.mean += judgement.scores[i].value;
    }
}

void finish_means(GradeSummary& summary) {
    summary.mean_reward /= static_cast<double>(summary.rows);
    for (GradeSummary::Reward& reward : summary.rewards) {
        if (reward.ok > 0) reward.mean /= static_cast<double>(reward.ok);
    }
}

Json row_of(std::int64_t line, const Problem& problem, const Judgement& judgement) {
    Json row = {{"line", line},
                {"id", problem.id},
                {"scores", Json::object()},
                {"reward", judgement.reward}};
    for (const Score& score : judgement.scores) {
        row["scores"][score.name] =
            score.status == ScoreStatus::ok ? Json(score.value) : Json(nullptr);
    }
    return row;
}

}  // namespace

GradeSummary grade(std::istream& in, const std::string& in_name, RewardSet& rewards,
                   std::ostream& out, const text::Tokenizer* tokenizer) {
    GradeSummary summary;
    for (const std::string& name : rewards.names()) summary.rewards.push_back({.name = name});
    const auto judge = [&](std::string_view line, std::int64_t number, const std::string& where) {
        Problem problem =
            problem_from_json_line(line, static_cast<std::uint64_t>(summary.rows), where);
        const std::string text = completion_of(problem, where);
        const FinishReason finish = finish_of(problem, where);
        const std::int64_t length = length_of(problem, text, tokenizer, where);
        const ScoreRequest request{&problem, {.text = text, .length = length, .finish = finish}};
        const std::vector<Judgement> judgements = rewards.judge(std::span(&request, 1));
        out << row_of(number, problem, judgements.front()).dump() << '\n';
        if (!out)
            throw EnvironmentError(
                fmt::format("{}: the result of line {} cannot be written", in_name, number));
        add_to(summary, judgements.front());
    };
    const std::int64_t rows = for_each_row(in, in_name, kMostLineBytes, judge);
    require(rows > 0, "{}: there is nothing to grade; expected one JSON object a line", in_name);
    finish_means(summary);
    return summary;
}

}  // namespace rankwise::tasks
