#include "src/tasks/behaviour.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "src/tasks/countdown.hpp"
#include "src/tasks/countdown_answer.hpp"
#include "src/tasks/reward.hpp"

namespace rankwise::tasks {
namespace {

constexpr std::array<Marker, 20> kMarkers{
    {{"wait"},          {"again"},  {"check"},    {"recheck"},  {"double-check"},
     {"let me"},        {"let's"},  {"hmm"},      {"actually"}, {"however"},
     {"alternatively"}, {"verify"}, {"evaluate"}, {"retry"},    {"rethink"},
     {"reconsider"},    {"oops"},   {"mistake"},  {"wrong"},    {"error"}}};

struct Trace {
    int tries = 0;
    int sums = 0;
    int wrong_sums = 0;
    int repeats = 0;
    int checks = 0;
    int restarts = 0;
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
    static const TokenId versus = id_of(" vs ");
    static const TokenId think_end = id_of("</think>");
    using Sum = std::array<TokenId, 3>;
    Trace trace;
    std::set<std::pair<Sum, Sum>> seen;
    std::vector<Sum> pending;
    bool erred = false;  // the try before had a wrong sum, or was left unfinished
    bool wrong = false;  // this one has a wrong sum
    for (std::size_t n = 0; n < words.size() && words[n] != think_end; ++n) {
        if (words[n] == wait && !pending.empty()) {
            erred = true;
            wrong = false;
            pending.clear();
        }
        const bool followed = n + 1 < words.size() && words[n + 1] != think_end;
        if (words[n] != equals || n < 3 || !followed) continue;
        if (pending.empty() && erred) {
            ++trace.restarts;
            erred = false;
        }
        const Sum sum = {words[n - 3], words[n - 2], words[n - 1]};
        const TokenId op = sum[1];
        if (is_number(sum[0]) && is_operator(op) && is_number(sum[2]) && is_number(words[n + 1])) {
            const auto value = [](TokenId word) {
                return std::int64_t{word - countdown::kFirstNumber};
            };
            ++trace.sums;
            if (!sum_is_right(value(sum[0]), countdown::word(op)[0], value(sum[2]),
                              value(words[n + 1]))) {
                ++trace.wrong_sums;
                wrong = true;
            }
        }
        pending.push_back(sum);
        if (pending.size() == 2) {
            ++trace.tries;
            if (!seen.emplace(pending[0], pending[1]).second) ++trace.repeats;
            if (n + 2 < words.size() && words[n + 2] == versus) ++trace.checks;
            erred = wrong;
            wrong = false;
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
                   {"repeated_tries", trace.repeats},
                   {"checks", trace.checks},
                   {"restarts", trace.restarts},
                   {"tried_again", tried_again},
                   {"self_corrected", tried_again * right(problem, answer).value_or(0.0)}});
}

constexpr std::array<Share, 3> kShares = {{{"wrong_sums", "sums", "sum_error_rate"},
                                           {"repeats", "tries", "repeat_rate"},
                                           {"checks", "tries", "check_rate"}}};

bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_of_word(char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_';
}

// Whether `marker` stands in `text` at `at`, where a word begins, and ends with a word; ASCII
// letters in either case.
bool stands_at(std::string_view text, std::size_t at, std::string_view marker) {
    if (marker.size() > text.size() - at) return false;
    for (std::size_t i = 0; i < marker.size(); ++i) {
        const char c = text[at + i];
        if ((is_letter(c) ? static_cast<char>(c | 0x20) : c) != marker[i]) return false;
    }
    const std::size_t end = at + marker.size();
    return end == text.size() || !is_of_word(text[end]);
}

double total_of(const Counts& totals, std::string_view name) {
    for (const auto& [key, value] : totals) {
        if (key == name) return value;
    }
    return 0.0;
}

}  // namespace

std::span<const Marker> reflection_markers() {
    return kMarkers;
}

std::span<const Share> shares() {
    return kShares;
}

std::size_t marker_at(std::string_view text, std::size_t at, std::string_view task,
                      std::span<const Marker> markers) {
    if (at > 0 && is_of_word(text[at - 1])) return 0;
    std::size_t longest = 0;
    for (const Marker& marker : markers) {
        const bool says_so = marker.task.empty() || marker.task == task;
        if (says_so && stands_at(text, at, marker.text))
            longest = std::max(longest, marker.text.size());
    }
    return longest;
}

std::int64_t count_markers(std::string_view text, std::string_view task,
                           std::span<const Marker> markers) {
    std::int64_t count = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = marker_at(text, at, task, markers);
        count += length > 0 ? 1 : 0;
        at += std::max<std::size_t>(length, 1);
    }
    return count;
}

std::int64_t count_repeated_lines(std::string_view text) {
    constexpr std::string_view kSpaces = " \t\r";
    std::set<std::string_view> seen;
    std::int64_t repeated = 0;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        std::string_view line = text.substr(begin, end - begin);
        begin = end + 1;
        const std::size_t first = line.find_first_not_of(kSpaces);
        if (first == std::string_view::npos) continue;
        line = line.substr(first, line.find_last_not_of(kSpaces) + 1 - first);
        if (!seen.insert(line).second) ++repeated;
    }
    return repeated;
}

Counts text_behaviour(const Problem& problem, const Answer& answer) {
    return {{"cut_off", answer.finish == FinishReason::stop ? 0.0 : 1.0},
            {"reflections", static_cast<double>(count_markers(answer.text, problem.task))},
            {"repeated_lines", static_cast<double>(count_repeated_lines(answer.text))}};
}

Counts behaviour(const Problem& problem, const Answer& answer) {
    Counts counts = text_behaviour(problem, answer);
    if (problem.task == "countdown") add_countdown(problem, answer, counts);
    return counts;
}

Counts summarise(const std::vector<Counts>& answers) {
    if (answers.empty()) return {};
    Counts totals = answers.front();
    for (std::size_t i = 1; i < answers.size(); ++i) {
        const Counts& counts = answers[i];
        std::size_t shared = 0;
        while (shared < totals.size() && shared < counts.size() &&
               totals[shared].first == counts[shared].first) {
            totals[shared].second += counts[shared].second;
            ++shared;
        }
        totals.resize(shared);
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
