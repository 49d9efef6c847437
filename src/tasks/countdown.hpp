// The small Countdown: three numbers, one target, a vocabulary of 122 tokens, and a teacher that is
// often wrong.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/philox.hpp"
#include "src/base/trajectory.hpp"
#include "src/tasks/dataset.hpp"

namespace rankwise::tasks::countdown {

// ---- vocabulary: 22 symbols, then the numbers 0..99, one token each
inline constexpr int kLargest = 99;  ///< no value in a trace is larger
inline constexpr TokenId kPad = 0;
inline constexpr TokenId kBos = 1;
inline constexpr TokenId kEos = 2;
inline constexpr TokenId kFirstNumber = 22;
inline constexpr TokenId kVocabulary = 122;
inline constexpr std::int64_t kPromptTokens = 8;  ///< <bos> a , b , c -> target

/// The text of a token, e.g. " low," or "12".
[[nodiscard]] std::string_view word(TokenId id);
/// The id of a word, or -1.
[[nodiscard]] TokenId id_of(std::string_view word);
[[nodiscard]] constexpr TokenId number(int value) {
    return kFirstNumber + value;
}
/// All words of some ids, put together.
[[nodiscard]] std::string text_of(std::span<const TokenId> ids);
/// The vocabulary as a Hugging Face tokenizer.json (WordLevel; the longest token wins) and its
/// tokenizer_config.json. Every sequence that the task produces has the same ids after decoding and
/// encoding.
[[nodiscard]] std::string tokenizer_json();
[[nodiscard]] std::string tokenizer_config_json();

// ---- problems
/// Three numbers from 1..hi and a target in 1..99 that two steps of the teacher reach.
struct Puzzle {
    std::array<int, 3> nums{};
    int target = 0;
    friend bool operator==(const Puzzle&, const Puzzle&) = default;
};

/// One step of a try: left op right = value, the larger operand first.
struct Step {
    int left = 0;
    char op = '+';
    int right = 0;
    int value = 0;
    friend bool operator==(const Step&, const Step&) = default;
};

/// A try: two of the numbers, then their result with the third.
struct Try {
    Step first;
    Step second;
    int third = 0;
    friend bool operator==(const Try&, const Try&) = default;
};

/// The steps that two values allow: + - * / in this order, the larger operand first, all values in
/// 0..99.
[[nodiscard]] std::vector<Step> steps_from(int x, int y);

/// Every try for three numbers, each once, in a fixed order. All values are in 0..99 and divisions
/// exact.
[[nodiscard]] std::vector<Try> tries_of(const std::array<int, 3>& nums);

/// Hash of (sorted numbers, target), 0..99, the same in any language: h = (h * 1000003 + v + 1) mod
/// (2^31 - 1) over them.
[[nodiscard]] int bucket(const Puzzle& puzzle);
/// Buckets below 10 are never trained on.
inline constexpr int kHeldOutBuckets = 10;
[[nodiscard]] inline bool is_held_out(const Puzzle& puzzle) {
    return bucket(puzzle) < kHeldOutBuckets;
}

/// Uniform numbers in 1..hi, then a uniform reachable target, drawn again until its side of the
/// split is right.
[[nodiscard]] Puzzle sample_puzzle(RandomSequence& random, int hi, bool held_out);

[[nodiscard]] std::vector<TokenId> prompt_of(const Puzzle& puzzle);
/// As a Problem of task "countdown"; the prompt is its text without <bos>, e.g. "7,3,12->48".
[[nodiscard]] Problem problem_of(const Puzzle& puzzle, std::uint64_t id);

// ---- the teacher
struct TeacherOptions {
    int hi = 12;           ///< numbers are drawn from 1..hi; 1 <= hi <= 99
    double bias = 0.4;     ///< how much it prefers tries that land near the target
    double give_up = 0.2;  ///< probability of giving up after each miss
    double slip = 0.01;    ///< probability of an arithmetic slip per step
    int max_tries = 10;
    std::int64_t max_tokens = 208;  ///< longer traces are drawn again
    double tagged = 1.0;            ///< share of traces with the tags of thought and answer
    double checked = 1.0;           ///< share of traces that compare each try with the target
};

/// One imperfect search, from <think> to <eos>: tries in a random order that mildly prefers values
/// near the target, slips, stops at a hit or gives up.
[[nodiscard]] std::vector<TokenId> teacher_trace(RandomSequence& random, const Puzzle& puzzle,
                                                 const TeacherOptions& options);

/// A trace in a poorer form: without the tags (the expression follows the search), or without the
/// comparison of each try with the target.
[[nodiscard]] std::vector<TokenId> raw_form(std::span<const TokenId> trace, bool tagged,
                                            bool checked);

// ---- data sets; all of them depend on (seed, index) alone
/// Problems for training, without end; none is held out.
class Training final : public Dataset {
  public:
    /// @throws BadInput if hi is not in 1..99.
    explicit Training(std::uint64_t seed, int hi = 12);
    [[nodiscard]] std::optional<std::int64_t> size() const override { return std::nullopt; }
    [[nodiscard]] Problem problem(std::int64_t index) const override;

  private:
    std::uint64_t seed_;
    int hi_;
};

/// `count` different held-out problems, the same for every seed of a run.
class HeldOut final : public Dataset {
  public:
    /// @throws BadInput if there are not that many for this `hi`.
    explicit HeldOut(std::int64_t count = 400, int hi = 12);
    [[nodiscard]] std::optional<std::int64_t> size() const override;
    [[nodiscard]] Problem problem(std::int64_t index) const override;
    [[nodiscard]] std::span<const Puzzle> puzzles() const& { return puzzles_; }
    void puzzles() const&& = delete;  // the span would outlive the set

  private:
    std::vector<Puzzle> puzzles_;
};

/// Worked examples by the teacher; no held-out problem is among them.
class Teacher final : public DemonstrationSet {
  public:
    /// @throws BadInput if an option is out of range.
    Teacher(std::uint64_t seed, std::int64_t count, TeacherOptions options = {});
    [[nodiscard]] std::optional<std::int64_t> size() const override { return count_; }
    [[nodiscard]] Demonstration demonstration(std::int64_t index) const override;

  private:
    std::uint64_t seed_;
    std::int64_t count_;
    TeacherOptions options_;
};

}  // namespace rankwise::tasks::countdown
