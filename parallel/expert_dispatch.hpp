// Which rows travel to which rank where the experts of a layer are shared out over ranks, and in
// which order they lie there: index maths (NUMERICS N4).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/base/checked.hpp"

namespace rankwise::parallel {

/// Experts that a rank of the expert axis has: consecutive ones, as many as the others or one more.
[[nodiscard]] Range experts_of(std::int64_t experts, int ranks, int rank);
/// The rank that has an expert.
[[nodiscard]] int holder_of_expert(std::int64_t experts, int ranks, std::int64_t expert);

/// One pass of rows through the experts of a layer. Each rank has rows sorted by expert and then by
/// token (a token's row once for each expert that it chose); a holder computes all rows of its
/// experts, in the order of experts, then of the ranks that sent them, then of tokens. It does so
/// in rounds of at most so many rows, so that no choice of experts needs more memory. The backward
/// pass goes by the same plan. A plan costs a look at each count, a round as much as it moves: its
/// rows, and log(experts) for each rank.
class DispatchPlan {
  public:
    /// @param rows           [ranks * experts] rows of each rank for each expert, the same
    ///                       everywhere
    /// @param ranks_a_chunk  consecutive ranks whose tokens are of one chunk
    /// @param most           rows of a round on a holder, at least one
    DispatchPlan(std::span<const std::int64_t> rows, int ranks, int rank, int ranks_a_chunk,
                 std::int64_t most);

    /// Rows of one expert and one chunk, some of which a round computes: consecutive in its order.
    struct Segment {
        std::int64_t expert = 0;  ///< among all experts of the layer
        int chunk = 0;            ///< among the chunks of the axis
        Range rows;               ///< of the round
        bool begins = false;      ///< with the first row of the segment
        bool ends = false;        ///< with its last one
        friend bool operator==(const Segment&, const Segment&) = default;
    };
    struct Round {
        std::vector<Range> sent;             ///< by holder: of this rank's sorted rows
        std::vector<std::int64_t> received;  ///< rows by sender
        /// Where each row that this rank computes lies among the received ones.
        std::vector<std::int64_t> order;
        std::vector<Segment> segments;
    };
    [[nodiscard]] std::int64_t rounds() const { return rounds_; }
    [[nodiscard]] std::int64_t most() const { return most_; }
    [[nodiscard]] Round round(std::int64_t index) const;

    /// Experts of this rank.
    [[nodiscard]] Range own() const { return experts_of(experts_, ranks_, rank_); }
    /// Rows of one of its experts that are of one chunk.
    [[nodiscard]] std::int64_t rows_of(std::int64_t expert, int chunk) const;
    [[nodiscard]] int chunks() const { return ranks_ / ranks_a_chunk_; }

  private:
    /// Rows of this rank for one expert, that has some.
    struct Sent {
        std::int64_t place = 0;  ///< of the first among all that the holder computes
        Range rows;              ///< of this rank's sorted ones
    };
    /// Where those for a holder begin.
    struct Holder {
        std::int64_t first_sent = 0;
        std::int64_t first_row = 0;
    };
    /// Rows that this rank computes, of one expert and sender that has some: consecutive.
    struct Held {
        std::int64_t expert = 0;
        int sender = 0;
        Range rows;     ///< among all that it computes
        Range segment;  ///< those of the whole chunk
    };
    /// Of this rank's sorted rows, the first that a holder has not computed before its row `place`.
    [[nodiscard]] std::int64_t sent_before(int holder, std::int64_t place) const;

    int ranks_, rank_, ranks_a_chunk_;
    std::int64_t experts_, most_;
    std::int64_t rounds_ = 0;
    std::vector<Sent> sent_;                  // by holder and expert
    std::vector<Holder> holders_;             // and where the last one's end
    std::vector<Held> held_;                  // as they are computed
    std::vector<std::int64_t> segment_rows_;  // of this rank's experts, [expert][chunk]
};

}  // namespace rankwise::parallel
