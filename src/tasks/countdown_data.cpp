#include <algorithm>
#include <set>

#include "src/base/checked.hpp"
#include "src/base/error.hpp"
#include "src/tasks/countdown.hpp"

namespace rankwise::tasks::countdown {
namespace {

// Kinds of problems keep their ids apart, so that no two share a stream of draws.
constexpr std::uint64_t kHeldOutIds = std::uint64_t{1} << 48U;
constexpr std::uint64_t kTeacherIds = std::uint64_t{1} << 49U;
// The held-out problems are the same for every run.
constexpr std::uint64_t kHeldOutSeed = 12345;
// Traces longer than allowed may come this often in a row.
constexpr int kMostTraces = 10000;

void check_index(std::int64_t index, std::optional<std::int64_t> size) {
    ensure(index >= 0 && (!size || index < *size), "problem {} of {} was asked for", index,
           size ? std::to_string(*size) : "an endless set");
}

RandomSequence stream_of(std::uint64_t seed, std::uint64_t id) {
    return RandomSequence(RandomStream(seed, Purpose::data_generation, id));
}

void check(const TeacherOptions& options) {
    const auto probability = [](double value) { return value >= 0.0 && value <= 1.0; };
    require(options.hi >= 1 && options.hi <= kLargest, "hi: expected 1 to {}, found {}", kLargest,
            options.hi);
    require(options.bias >= 0.0 && options.bias <= 100.0, "bias: expected 0 to 100, found {}",
            options.bias);
    require(probability(options.give_up), "give_up: expected a probability, found {}",
            options.give_up);
    require(probability(options.slip), "slip: expected a probability, found {}", options.slip);
    require(probability(options.tagged), "tagged: expected a probability, found {}",
            options.tagged);
    require(probability(options.checked), "checked: expected a probability, found {}",
            options.checked);
    require(options.max_tries >= 1, "max_tries: expected at least 1, found {}", options.max_tries);
}

}  // namespace

Training::Training(std::uint64_t seed, int hi) : seed_(seed), hi_(hi) {
    RandomSequence random = stream_of(seed_, 0);
    static_cast<void>(sample_puzzle(random, hi_, false));  // refuses what cannot be drawn from
}

Problem Training::problem(std::int64_t index) const {
    check_index(index, std::nullopt);
    const auto id = narrow<std::uint64_t>(index);
    RandomSequence random = stream_of(seed_, id);
    return problem_of(sample_puzzle(random, hi_, false), id);
}

HeldOut::HeldOut(std::int64_t count, int hi) {
    require(count >= 1, "held-out problems: expected at least 1, found {}", count);
    RandomSequence random(RandomStream(kHeldOutSeed, Purpose::held_out));
    std::set<std::array<int, 4>> seen;
    const std::int64_t most_draws = 20000 + 50 * count;
    for (std::int64_t draw = 0; draw < most_draws && std::ssize(puzzles_) < count; ++draw) {
        const Puzzle puzzle = sample_puzzle(random, hi, true);
        std::array<int, 4> key{puzzle.nums[0], puzzle.nums[1], puzzle.nums[2], puzzle.target};
        std::sort(key.begin(), key.begin() + 3);
        if (seen.insert(key).second) puzzles_.push_back(puzzle);
    }
    require(std::ssize(puzzles_) == count,
            "held-out problems: {} are asked for, but numbers from 1 to {} have only {}; ask for "
            "fewer, or choose a "
            "larger hi",
            count, hi, puzzles_.size());
}

std::optional<std::int64_t> HeldOut::size() const {
    return std::ssize(puzzles_);
}

Problem HeldOut::problem(std::int64_t index) const {
    check_index(index, size());
    return problem_of(puzzles_[static_cast<std::size_t>(index)],
                      kHeldOutIds + narrow<std::uint64_t>(index));
}

Teacher::Teacher(std::uint64_t seed, std::int64_t count, TeacherOptions options)
    : seed_(seed), count_(count), options_(options) {
    require(count >= 1, "teacher's traces: expected at least 1, found {}", count);
    check(options_);
    static_cast<void>(demonstration(0));  // refuses a length that no trace has
}

Demonstration Teacher::demonstration(std::int64_t index) const {
    check_index(index, count_);
    const std::uint64_t id = kTeacherIds + narrow<std::uint64_t>(index);
    RandomSequence random = stream_of(seed_, id);
    for (int trace = 0; trace < kMostTraces; ++trace) {
        const Puzzle puzzle = sample_puzzle(random, options_.hi, false);
        std::vector<TokenId> response = teacher_trace(random, puzzle, options_);
        // Drawn only where forms are mixed: other traces stay what they were.
        const bool tagged = options_.tagged >= 1.0 || random.uniform() < options_.tagged;
        const bool checked = options_.checked >= 1.0 || random.uniform() < options_.checked;
        if (!tagged || !checked) response = raw_form(response, tagged, checked);
        if (std::ssize(response) <= options_.max_tokens)
            return {id, prompt_of(puzzle), std::move(response)};
    }
    throw BadInput(fmt::format("max_tokens: none of {} traces has at most {} tokens; allow more",
                               kMostTraces, options_.max_tokens));
}

}  // namespace rankwise::tasks::countdown
