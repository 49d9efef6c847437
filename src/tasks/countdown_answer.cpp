#include "src/tasks/countdown_answer.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "src/tasks/countdown.hpp"

namespace rankwise::tasks::countdown {
namespace {

constexpr TokenId kUnknown = -1;

struct SymbolIds {
    TokenId think = id_of("<think>");
    TokenId think_end = id_of("</think>");
    TokenId answer = id_of("<answer>");
    TokenId answer_end = id_of("</answer>");
    TokenId plus = id_of("+");
    TokenId minus = id_of("-");
    TokenId times = id_of("*");
    TokenId over = id_of("/");
    TokenId open = id_of("(");
    TokenId close = id_of(")");
};

const SymbolIds& symbols() {
    static const SymbolIds ids;
    return ids;
}

std::optional<std::vector<TokenId>> words_of_tokens(const Answer& answer) {
    if (answer.tokenizer == nullptr || answer.tokens.empty()) return std::nullopt;
    std::vector<TokenId> words;
    words.reserve(answer.tokens.size() + 1);
    for (const TokenId token : answer.tokens) {
        words.push_back(id_of(answer.tokenizer->token(token)));
        if (words.back() < 0) return std::nullopt;
    }
    return words;
}

// No word has more than this many bytes.
constexpr std::size_t kLongestWord = 9;

std::vector<TokenId> words_of_text(std::string_view text) {
    std::vector<TokenId> words;
    for (std::size_t at = 0; at < text.size();) {
        TokenId found = kUnknown;
        std::size_t size = std::min(kLongestWord, text.size() - at);
        for (; size > 0; --size) {
            found = id_of(text.substr(at, size));
            if (found >= 0) break;
        }
        const bool space =
            found < 0 && std::string_view(" \t\r\n").find(text[at]) != std::string_view::npos;
        if (!space) words.push_back(found);
        at += std::max<std::size_t>(size, 1);
    }
    return words;
}

/// A fraction in lowest terms with a positive denominator; whatever does not fit 64 bits is no
/// value.
struct Fraction {
    std::int64_t up = 0;
    std::int64_t down = 1;
};

std::optional<Fraction> make_fraction(std::int64_t up, std::int64_t down) {
    if (down == 0 || up == INT64_MIN || down == INT64_MIN) return std::nullopt;
    const std::int64_t common = std::gcd(up, down);
    const std::int64_t sign = down < 0 ? -1 : 1;
    return Fraction{sign * (up / common), sign * (down / common)};
}

std::optional<Fraction> apply(TokenId op, Fraction a, Fraction b) {
    if (op == symbols().over) {
        std::swap(b.up, b.down);
        op = symbols().times;
    }
    std::int64_t up = 0;
    std::int64_t down = 0;
    if (__builtin_mul_overflow(a.down, b.down, &down)) return std::nullopt;
    if (op == symbols().times) {
        if (__builtin_mul_overflow(a.up, b.up, &up)) return std::nullopt;
        return make_fraction(up, down);
    }
    std::int64_t left = 0;
    std::int64_t right = 0;
    if (__builtin_mul_overflow(a.up, b.down, &left) || __builtin_mul_overflow(b.up, a.down, &right))
        return std::nullopt;
    const bool overflow = op == symbols().plus ? __builtin_add_overflow(left, right, &up)
                                               : __builtin_sub_overflow(left, right, &up);
    if (overflow) return std::nullopt;
    return make_fraction(up, down);
}

int precedence(TokenId op) {
    if (op == symbols().times || op == symbols().over) return 2;
    return op == symbols().plus || op == symbols().minus ? 1 : 0;
}

// Two stacks (Dijkstra's shunting yard).
class Evaluator {
  public:
    std::optional<Fraction> operator()(std::span<const TokenId> expression) {
        bool operand_next = true;
        for (const TokenId word : expression) {
            const bool number = is_number(word);
            if (operand_next != (number || word == symbols().open)) return std::nullopt;
            if (number) {
                values_.push_back({word - kFirstNumber, 1});
                operand_next = false;
            } else if (word == symbols().open) {
                ops_.push_back(word);
            } else if (word == symbols().close) {
                if (!reduce(1) || ops_.empty()) return std::nullopt;
                ops_.pop_back();
            } else if (precedence(word) > 0) {
                if (!reduce(precedence(word))) return std::nullopt;
                ops_.push_back(word);
                operand_next = true;
            } else {
                return std::nullopt;
            }
        }
        if (operand_next || !reduce(1) || !ops_.empty()) return std::nullopt;
        return values_.back();
    }

  private:
    // Applies what binds at least as strongly, back to the last open parenthesis.
    bool reduce(int least) {
        while (!ops_.empty() && precedence(ops_.back()) >= least) {
            const Fraction b = values_.back();
            values_.pop_back();
            const auto value = apply(ops_.back(), values_.back(), b);
            if (!value) return false;
            values_.back() = *value;
            ops_.pop_back();
        }
        return true;
    }

    std::vector<Fraction> values_;
    std::vector<TokenId> ops_;
};

}  // namespace

bool is_number(TokenId word) {
    return word >= kFirstNumber;
}

bool is_operator(TokenId word) {
    return word >= symbols().plus && word <= symbols().over;
}

std::vector<TokenId> words_of(const Answer& answer) {
    std::vector<TokenId> words = words_of_tokens(answer).value_or(std::vector<TokenId>{});
    if (words.empty()) words = words_of_text(answer.text);
    const bool ended = answer.finish == FinishReason::stop;
    if (ended && (words.empty() || words.back() != kEos)) words.push_back(kEos);
    return words;
}

std::optional<Tags> tags_of(std::span<const TokenId> words) {
    const SymbolIds& ids = symbols();
    std::array<std::size_t, 5> at{};
    const std::array<TokenId, 5> tags = {ids.think, ids.think_end, ids.answer, ids.answer_end,
                                         kEos};
    for (std::size_t i = 0; i < tags.size(); ++i) {
        if (std::count(words.begin(), words.end(), tags[i]) != 1) return std::nullopt;
        at[i] = static_cast<std::size_t>(std::find(words.begin(), words.end(), tags[i]) -
                                         words.begin());
    }
    for (const TokenId never : {kBos, kPad}) {
        if (std::find(words.begin(), words.end(), never) != words.end()) return std::nullopt;
    }
    const bool in_order = at[0] == 0 && at[2] == at[1] + 1 && at[3] > at[2] && at[4] == at[3] + 1;
    if (!in_order) return std::nullopt;
    return Tags{at[1], at[2], at[3]};
}

bool reaches(std::span<const TokenId> expression, std::span<const std::int64_t> nums,
             std::int64_t target) {
    std::vector<std::int64_t> used;
    for (const TokenId word : expression) {
        if (word >= kFirstNumber) used.push_back(word - kFirstNumber);
    }
    std::vector<std::int64_t> given(nums.begin(), nums.end());
    std::sort(used.begin(), used.end());
    std::sort(given.begin(), given.end());
    if (used != given) return false;
    const auto value = Evaluator{}(expression);
    return value && value->down == 1 && value->up == target;
}

}  // namespace rankwise::tasks::countdown
