// Scoring: batches are handed in and collected later, so that it runs under generation.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/tasks/reward.hpp"

namespace rankwise::tasks {

/// One answer to be judged. What it refers to must live until its ticket is collected.
struct ScoreRequest {
    const Problem* problem = nullptr;
    Answer answer;
    std::int32_t sample = 0;  ///< which of the prompt's samples; for messages
};

struct ScoreResult {
    double value = 0.0;  ///< 0 unless the status is ok
    ScoreStatus status = ScoreStatus::ok;
    friend bool operator==(const ScoreResult&, const ScoreResult&) = default;
};

enum class Ticket : std::int64_t {};

/// Rule rewards, reward models, judges, outside checkers. A scorer belongs to one thread.
class Scorer {
  public:
    virtual ~Scorer() = default;
    [[nodiscard]] virtual Ticket submit(std::span<const ScoreRequest> requests) = 0;
    /// The results in the order of the requests; waits until they are there. A ticket is collected
    /// once.
    /// @throws InternalError for a ticket that is not open.
    [[nodiscard]] virtual std::vector<ScoreResult> collect(Ticket ticket) = 0;
};

/// A rule reward as a scorer; it is computed when it is submitted.
class RuleScorer final : public Scorer {
  public:
    explicit RuleScorer(RewardFunction function) : function_(std::move(function)) {}
    [[nodiscard]] Ticket submit(std::span<const ScoreRequest> requests) override;
    [[nodiscard]] std::vector<ScoreResult> collect(Ticket ticket) override;

  private:
    RewardFunction function_;
    std::int64_t next_ = 0;
    std::unordered_map<std::int64_t, std::vector<ScoreResult>> open_;
};

/// What a RewardSet says of one answer.
struct Judgement {
    std::vector<Score>
        scores;           ///< one a reward, in the recipe's order; the span is the whole answer
    double reward = 0.0;  ///< sum of weight * value over those that are ok, in that order
};

/// The rewards of a recipe, with their weights.
class RewardSet {
  public:
    /// @throws BadInput as make_reward, for a weight that is not finite, a name that comes twice,
    /// or an empty list.
    explicit RewardSet(std::span<const RewardSpec> specs);

    /// Adds a scorer that is not in the table. @throws BadInput as above.
    void add(std::string name, double weight, std::unique_ptr<Scorer> scorer);

    [[nodiscard]] Ticket submit(std::span<const ScoreRequest> requests);
    /// @throws BadNumbers if a reward is not finite (names prompt, sample and reward),
    /// InternalError for a ticket that is
    ///         not open.
    [[nodiscard]] std::vector<Judgement> collect(Ticket ticket);
    /// submit and collect.
    [[nodiscard]] std::vector<Judgement> judge(std::span<const ScoreRequest> requests);

    [[nodiscard]] std::vector<std::string> names() const;
    [[nodiscard]] std::vector<double> weights() const;

  private:
    struct Member {
        std::string name;
        double weight = 1.0;
        std::unique_ptr<Scorer> scorer;
    };
    struct Asked {
        std::uint64_t prompt_id = 0;
        std::int32_t sample = 0;
        std::int64_t length = 0;
    };
    struct Open {
        std::vector<Ticket> tickets;  // one a member
        std::vector<Asked> asked;
    };
    std::vector<Member> members_;
    std::int64_t next_ = 0;
    std::unordered_map<std::int64_t, Open> open_;
};

/// A set from two lists of a recipe: "countdown", "format" and 1, 0.2. Without weights all are 1.
/// @throws BadInput as RewardSet, or if the lists differ in length.
[[nodiscard]] RewardSet make_reward_set(std::span<const std::string> rewards,
                                        std::span<const double> weights);

}  // namespace rankwise::tasks
