#include <algorithm>
#include <cstdlib>

#include "src/base/error.hpp"
#include "src/base/maths.hpp"
#include "src/tasks/countdown.hpp"

namespace rankwise::tasks::countdown {
namespace {

struct Keyed {
    double key = 0.0;
    Try attempt;
};

// Gumbel top-k: sorting by log weight + Gumbel noise draws without replacement in proportion to the
// weights (1 + |value - target|)^-bias. Kool et al. 2019, "Stochastic beams and where to find
// them".
std::vector<Keyed> order_of(RandomSequence& random, const Puzzle& puzzle, double bias) {
    std::vector<Keyed> order;
    for (const Try& attempt : tries_of(puzzle.nums)) {
        const double gumbel = -maths::log(-maths::log(random.uniform()));
        const double miss = std::abs(attempt.second.value - puzzle.target);
        order.push_back({gumbel - bias * maths::log(1.0 + miss), attempt});
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const Keyed& a, const Keyed& b) { return a.key > b.key; });
    return order;
}

int maybe_slip(RandomSequence& random, int value, double probability) {
    constexpr std::array<int, 6> kSlips = {-10, -2, -1, 1, 2, 10};
    if (random.uniform() >= probability) return value;
    return std::clamp(value + kSlips[static_cast<std::size_t>(random.below(kSlips.size()))], 0,
                      kLargest);
}

TokenId op_token(char op) {
    return id_of(std::string_view(&op, 1));
}

void write_step(std::vector<TokenId>& out, const Step& step, int shown) {
    static const TokenId equals = id_of("=");
    out.insert(out.end(),
               {number(step.left), op_token(step.op), number(step.right), equals, number(shown)});
}

// The try as one expression, with `shown` for the first step's result as it was written.
std::vector<TokenId> expression_of(const Step& first, const Step& second, int third, int shown) {
    static const TokenId open = id_of("(");
    static const TokenId close = id_of(")");
    const std::array<TokenId, 5> inner = {open, number(first.left), op_token(first.op),
                                          number(first.right), close};
    std::vector<TokenId> out;
    if (second.left == shown) {
        out.assign(inner.begin(), inner.end());
        out.insert(out.end(), {op_token(second.op), number(third)});
    } else {
        out = {number(third), op_token(second.op)};
        out.insert(out.end(), inner.begin(), inner.end());
    }
    return out;
}

}  // namespace

std::vector<TokenId> teacher_trace(RandomSequence& random, const Puzzle& puzzle,
                                   const TeacherOptions& options) {
    static const TokenId comma = id_of(",");
    static const TokenId versus = id_of(" vs ");
    static const TokenId low = id_of(" low,");
    static const TokenId high = id_of(" high,");
    static const TokenId wait = id_of(" wait ");
    static const TokenId yes = id_of(" yes");
    static const TokenId give_up = id_of(" give up");

    std::vector<TokenId> out = {id_of("<think>")};
    std::vector<TokenId> answer;
    const std::vector<Keyed> order = order_of(random, puzzle, options.bias);
    for (std::size_t n = 0; n < order.size(); ++n) {
        const auto& [first, planned, third] = order[n].attempt;
        const int result = maybe_slip(random, first.value, options.slip);
        Step second = planned;
        if (result !=
            first.value) {  // the second step goes on from the slip, if its operation still can
            const std::vector<Step> steps = steps_from(result, third);
            const auto same = std::find_if(steps.begin(), steps.end(),
                                           [&](const Step& step) { return step.op == planned.op; });
            if (same == steps.end()) continue;
            second = *same;
        }
        const int value = maybe_slip(random, second.value, options.slip);
        write_step(out, first, result);
        out.push_back(comma);
        write_step(out, second, value);
        out.insert(out.end(), {versus, number(puzzle.target)});
        answer = expression_of(first, second, third, result);
        if (value == puzzle.target) {
            out.push_back(yes);
            break;
        }
        out.push_back(value < puzzle.target ? low : high);
        const bool last =
            static_cast<int>(n) + 1 >= options.max_tries || random.uniform() < options.give_up;
        out.push_back(last ? give_up : wait);
        if (last) break;
    }
    // A subtraction can always go on from a slip, so that there is a try; it may be the last of
    // all.
    ensure(!answer.empty(), "a trace without a try");
    if (out.back() == wait) out.back() = give_up;
    out.insert(out.end(), {id_of("</think>"), id_of("<answer>")});
    out.insert(out.end(), answer.begin(), answer.end());
    out.insert(out.end(), {id_of("</answer>"), kEos});
    return out;
}

std::vector<TokenId> raw_form(std::span<const TokenId> trace, bool tagged, bool checked) {
    static const std::array<TokenId, 4> tags{id_of("<think>"), id_of("</think>"), id_of("<answer>"),
                                             id_of("</answer>")};
    static const TokenId versus = id_of(" vs ");
    static const std::array<TokenId, 2> misses{id_of(" low,"), id_of(" high,")};
    std::vector<TokenId> out;
    for (std::size_t at = 0; at < trace.size(); ++at) {
        const TokenId id = trace[at];
        if (!tagged && std::find(tags.begin(), tags.end(), id) != tags.end()) continue;
        if (!checked && id == versus) {
            ++at;  // the target
            continue;
        }
        if (!checked && std::find(misses.begin(), misses.end(), id) != misses.end()) continue;
        out.push_back(id);
    }
    return out;
}

}  // namespace rankwise::tasks::countdown
