#include "src/model/token_split.hpp"

namespace rankwise::model {

TokenSplit::TokenSplit(const Weights& weights, const Microbatch& batch)
    : total_(batch.rows()), mine_{0, batch.rows()} {
    if (!weights.split()) return;
    const TensorPlace place = weights.part().place;
    const std::int64_t blocks = std::ssize(batch.norm_blocks) - 1;
    const auto border = [&](std::int64_t block) {
        return batch.norm_blocks[static_cast<std::size_t>(block)];
    };
    for (int rank = 0; rank < place.degree; ++rank) {
        const Range own = rankwise::split(blocks, place.degree, rank);
        blocks_of_ranks_.push_back(own);
        rows_.push_back({border(own.begin), border(own.end)});
    }
    rank_ = static_cast<std::size_t>(place.rank);
    mine_ = rows_[rank_];
}

void gather_rows(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                 std::string_view label, kernels::ConstMatrix mine, kernels::Matrix whole) {
    sums::all_gather(compute.tools(), weights.tensor(), label, tokens.rows(), mine, whole);
}

kernels::Matrix whole_rows(Compute& compute, const Weights& weights, const TokenSplit& tokens,
                           std::string_view label, kernels::Matrix mine) {
    if (!tokens.split()) return mine;
    const kernels::Matrix whole = compute.matrix(tokens.total(), mine.cols, mine.dtype);
    gather_rows(compute, weights, tokens, label, mine, whole);
    return whole;
}

}  // namespace rankwise::model
