#include "src/tasks/behaviour.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "src/base/error.hpp"
#include "src/tasks/countdown.hpp"
#include "src/tasks/countdown_answer.hpp"
#include "src/tasks/reward.hpp"

namespace rankwise::tasks {
namespace {

struct Trace {
    int tries = 0;
    int sums = 0;
    int wrong_sums = 0;
    int repeats = 0;
};

bool sum_is_right(std::int64_t left, char op, std::int64_t right, std::int64_t value) {
    switch (op) {
        case '+':
            return left + right == value;
        case '-':
            return left - right == value;
        case '*':
            return left * right == value;
        default:
            return right != 0 && left == right * value;
    }
}

// Sums "a+b=c" before </think>; two of them are a try, unless " wait " comes between.
Trace trace_of(std::span<const TokenId> words) {
    using countdown::id_of;
    using countdown::is_number;
    using countdown::is_operator;
    static const TokenId equals = id_of("=");
    static const TokenId wait = id_of(" wait ");
    static const TokenId think_end = id_of("</think>");
    using Sum = std::array<TokenId, 3>;
    Trace trace;
    std::set<std::pair<Sum, Sum>> seen;
    std::vector<Sum> pending;
    for (std::size_t n = 0; n < words.size() && words[n] != think_end; ++n) {
        if (words[n] == wait) pending.clear();
        const bool followed = n + 1 < words.size() && words[n + 1] != think_end;
        if (words[n] != equals || n < 3 || !followed) continue;
        const Sum sum = {words[n - 3], words[n - 2], words[n - 1]};
        const TokenId op = sum[1];
        if (is_number(sum[0]) && is_operator(op) && is_number(sum[2]) && is_number(words[n + 1])) {
            const auto value = [](TokenId word) {
                return std::int64_t{word - countdown::kFirstNumber};
            };
            ++trace.sums;
            if (!sum_is_right(value(sum[0]), countdown::word(op)[0], value(sum[2]),
                              value(words[n + 1])))
                ++trace.wrong_sums;
        }
        pending.push_back(sum);
        if (pending.size() == 2) {
            ++trace.tries;
            if (!seen.emplace(pending[0], pending[1]).second) ++trace.repeats;
            pending.clear();
        }
    }
    return trace;
}

void add_countdown(const Problem& problem, const Answer& answer, Counts& counts) {
    static const RewardFunction right = make_reward({.name = "countdown", .parameters = {}});
    const Trace trace = trace_of(countdown::words_of(answer));
    const double tried_again = trace.tries > 1 ? 1.0 : 0.0;
    counts.insert(counts.end(),
                  {{"tries", trace.tries},
                   {"sums", trace.sums},
                   {"wrong_sums", trace.wrong_sums},
                   {"repeats", trace.repeats},
                   {"tried_again", tried_again},
                   {"self_corrected", tried_again * right(problem, answer).value_or(0.0)}});
}

// Counts that mean something as a share of another count.
struct Share {
    std::string_view count;
    std::string_view of;
    std::string_view name;
};
constexpr std::array<Share, 2> kShares = {
    {{"wrong_sums", "sums", "sum_error_rate"}, {"repeats", "tries", "repeat_rate"}}};

double total_of(const Counts& totals, std::string_view name) {
    for (const auto& [key, value] : totals) {
        if (key == name) return value;
    }
    return 0.0;
}

}  // namespace

Counts behaviour(const Problem& problem, const Answer& answer) {
    Counts counts = {{"cut_off", answer.finish == FinishReason::stop ? 0.0 : 1.0}};
    if (problem.task == "countdown") add_countdown(problem, answer, counts);
    return counts;
}

Counts summarise(const std::vector<Counts>& answers) {
    if (answers.empty()) return {};
    Counts totals = answers.front();
    for (std::size_t i = 1; i < answers.size(); ++i) {
        ensure(answers[i].size() == totals.size(),
               "answers of several tasks cannot be summarised together");
        for (std::size_t k = 0; k < totals.size(); ++k) {
            ensure(answers[i][k].first == totals[k].first,
                   "answers of several tasks cannot be summarised together");
            totals[k].second += answers[i][k].second;
        }
    }
    Counts metrics;
    for (const auto& [name, total] : totals) {
        const auto* share = std::find_if(
            kShares.begin(), kShares.end(),
            [&, key = std::string_view(name)](const Share& s) { return s.count == key; });
        if (share == kShares.end()) {
            metrics.emplace_back(name, total / static_cast<double>(answers.size()));
        } else {
            metrics.emplace_back(share->name, total / std::max(1.0, total_of(totals, share->of)));
        }
    }
    return metrics;
}

}  // namespace rankwise::tasks
