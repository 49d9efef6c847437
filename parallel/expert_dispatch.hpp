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
/// pass goes by the same plan.
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
    [[nodiscard]] std::int64_t rows(int rank, std::int64_t expert) const {
        return rows_[static_cast<std::size_t>(rank * experts_ + expert)];
    }
    /// Rows that a holder computes in all.
    [[nodiscard]] std::int64_t load_of(int holder) const;
    /// Which of rank `from`'s rows for a holder lie in [window) of those that it computes, counted
    /// among the rows of `from` for it.
    [[nodiscard]] Range part_of(int from, int holder, Range window) const;

    std::vector<std::int64_t> rows_;
    int ranks_, rank_, ranks_a_chunk_;
    std::int64_t experts_, most_;
    std::int64_t rounds_ = 0;
};

}  // namespace rankwise::parallel
