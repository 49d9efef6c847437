// The embedding: rows of tokens, looked up where tensor ranks hold them, and their gradients.
#pragma once

#include <span>
#include <vector>

#include "src/model/token_split.hpp"

namespace rankwise::model {

/// x [T, hidden] = the rows of ids [T] of `table`, this rank's part of the vocabulary. Collective
/// over the tensor axis of split weights.
void look_up(Compute& compute, const Weights& weights, kernels::ConstMatrix table,
             std::span<const TokenId> ids, kernels::Matrix x);
/// Of the embedding.
void embed(Compute& compute, const Weights& weights, std::span<const TokenId> ids,
           kernels::Matrix x);
/// Of a micro-batch: this rank's rows of the residual stream before the first layer.
void embed(Compute& compute, const Weights& weights, const Microbatch& batch,
           const TokenSplit& tokens, kernels::Matrix mine);

/// Gradients of the rows that this rank holds: rows [unique, hidden] in scratch memory, of ids that
/// ascend and are counted from its first.
struct EmbeddingGradient {
    std::vector<TokenId> unique;
    kernels::Matrix rows;
};
/// @param dout  [T, hidden]: of what was looked up for ids [T]
[[nodiscard]] EmbeddingGradient embedding_gradient(Compute& compute, const Weights& weights,
                                                   std::span<const TokenId> ids,
                                                   kernels::ConstMatrix dout);

}  // namespace rankwise::model
