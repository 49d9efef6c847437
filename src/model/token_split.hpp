// Where tensor ranks share out the rows of the residual stream: norms and what is added to the
// stream are computed for a rank's own rows only, and kept for them only.
#pragma once

#include <vector>

#include "src/model/microbatch.hpp"
#include "src/model/weights.hpp"

namespace rankwise::model {

/// How the rows of a pass lie on the tensor ranks: all on every rank, or each rank's own, cut at
/// borders of the micro-batch's blocks (N2), so that a norm's gradient can be summed block by
/// block.
class TokenSplit {
  public:
    /// Every rank has all rows: generation.
    explicit TokenSplit(std::int64_t rows) : total_(rows), mine_{0, rows} {}
    /// Training: own rows, where the model is split.
    TokenSplit(const Weights& weights, const Microbatch& batch);

    [[nodiscard]] bool split() const { return !rows_.empty(); }
    [[nodiscard]] std::int64_t total() const { return total_; }
    /// Rows of this rank, and which blocks they are.
    [[nodiscard]] Range mine() const { return mine_; }
    [[nodiscard]] Range blocks() const { return blocks_of_ranks_[rank_]; }
    /// Of every rank; only where split.
    [[nodiscard]] std::span<const Range> rows() const { return rows_; }
    [[nodiscard]] std::span<const Range> blocks_of_ranks() const { return blocks_of_ranks_; }

  private:
    std::int64_t total_;
    Range mine_;
    std::size_t rank_ = 0;
    std::vector<Range> rows_;
    std::vector<Range> blocks_of_ranks_;
};

/// `whole` [all rows, cols] from the rows of every rank. Collective over the tensor axis where
/// split.
void gather_rows(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                 std::string_view label, kernels::ConstMatrix mine, kernels::Matrix whole);

/// All rows of a matrix of which this rank has its own: in scratch memory, or the matrix itself
/// where every rank has all. Collective over the tensor axis where split.
[[nodiscard]] kernels::Matrix whole_rows(Compute& compute, const Weights& weights,
                                         const TokenSplit& tokens, std::string_view label,
                                         kernels::Matrix mine);

}  // namespace rankwise::model
