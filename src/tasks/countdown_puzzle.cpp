#include <algorithm>

#include "src/base/error.hpp"
#include "src/tasks/countdown.hpp"

namespace rankwise::tasks::countdown {
namespace {

// At most four steps from two values; none is larger than kLargest.
struct Steps {
    std::array<Step, 4> step{};
    int count = 0;
    void add(Step value) { step[static_cast<std::size_t>(count++)] = value; }
    [[nodiscard]] const Step* begin() const { return step.data(); }
    [[nodiscard]] const Step* end() const { return step.data() + count; }
};

Steps steps_of(int x, int y) {
    if (x < y) std::swap(x, y);
    Steps steps;
    if (x + y <= kLargest) steps.add({x, '+', y, x + y});
    steps.add({x, '-', y, x - y});
    if (x * y <= kLargest) steps.add({x, '*', y, x * y});
    if (y > 0 && x % y == 0) steps.add({x, '/', y, x / y});
    return steps;
}

// Draws that may go to the wrong side of the split before it is said that the right one is empty.
constexpr int kMostDraws = 100000;

}  // namespace

std::vector<Step> steps_from(int x, int y) {
    const Steps steps = steps_of(x, y);
    return {steps.begin(), steps.end()};
}

std::vector<Try> tries_of(const std::array<int, 3>& nums) {
    std::vector<Try> tries;
    tries.reserve(48);
    for (std::size_t third = 0; third < 3; ++third) {
        const int a = nums[third == 0 ? 1 : 0];
        const int b = nums[third == 2 ? 1 : 2];
        for (const Step& first : steps_of(a, b)) {
            for (const Step& second : steps_of(first.value, nums[third])) {
                const Try each{first, second, nums[third]};
                if (std::find(tries.begin(), tries.end(), each) == tries.end())
                    tries.push_back(each);
            }
        }
    }
    return tries;
}

int bucket(const Puzzle& puzzle) {
    std::array<int, 4> values{puzzle.nums[0], puzzle.nums[1], puzzle.nums[2], puzzle.target};
    std::sort(values.begin(), values.begin() + 3);
    std::int64_t hash = 0;
    for (const int value : values) hash = (hash * 1000003 + value + 1) % 2147483647;
    return static_cast<int>(hash % 100);
}

Puzzle sample_puzzle(RandomSequence& random, int hi, bool held_out) {
    require(hi >= 1 && hi <= kLargest,
            "Countdown's numbers go from 1 to hi; expected hi from 1 to {}, found {}", kLargest,
            hi);
    for (int draw = 0; draw < kMostDraws; ++draw) {
        Puzzle puzzle;
        for (int& value : puzzle.nums)
            value = 1 + static_cast<int>(random.below(static_cast<std::uint64_t>(hi)));
        std::array<bool, kLargest + 1> reachable{};
        for (const Try& each : tries_of(puzzle.nums))
            reachable[static_cast<std::size_t>(each.second.value)] = true;
        std::vector<int> targets;
        for (int value = 1; value <= kLargest; ++value) {
            if (reachable[static_cast<std::size_t>(value)]) targets.push_back(value);
        }
        puzzle.target = targets[static_cast<std::size_t>(random.below(targets.size()))];
        if (is_held_out(puzzle) == held_out) return puzzle;
    }
    throw BadInput(
        fmt::format("Countdown with numbers from 1 to {} has no {} problem; choose a larger hi", hi,
                    held_out ? "held-out" : "training"));
}

std::vector<TokenId> prompt_of(const Puzzle& puzzle) {
    static const TokenId comma = id_of(",");
    static const TokenId arrow = id_of("->");
    const auto& [a, b, c] = puzzle.nums;
    return {kBos, number(a), comma, number(b), comma, number(c), arrow, number(puzzle.target)};
}

Problem problem_of(const Puzzle& puzzle, std::uint64_t id) {
    Problem problem;
    problem.id = id;
    problem.task = "countdown";
    const auto& [a, b, c] = puzzle.nums;
    problem.prompt = fmt::format("{},{},{}->{}", a, b, c, puzzle.target);
    problem.nums = {a, b, c};
    problem.target = puzzle.target;
    return problem;
}

}  // namespace rankwise::tasks::countdown
