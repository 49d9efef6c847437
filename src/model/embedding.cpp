#include "src/model/embedding.hpp"

#include <algorithm>

namespace rankwise::model {

using kernels::ConstMatrix;
using kernels::Matrix;

void look_up(Compute& compute, const Weights& weights, ConstMatrix table,
             std::span<const TokenId> ids, Matrix x) {
    if (!weights.split()) {
        compute.device.embed({.table = table, .ids = ids, .out = x}, compute.stream);
        return;
    }
    // Each rank looks up the ids whose rows it holds, and the rows travel.
    const Range own = weights.part().vocabulary;
    std::vector<int> holder;
    std::vector<TokenId> mine;
    for (const TokenId id : ids) {
        holder.push_back(weights.vocabulary().holder(id));
        ensure(holder.back() < weights.part().place.degree, "id {} of a vocabulary of {}", id,
               weights.config().vocab_size);
        if (own.contains(id)) mine.push_back(id - narrow<TokenId>(own.begin));
    }
    const kernels::Arena::Scope scope(compute.arena);
    const Matrix rows = compute.matrix(std::ssize(mine), x.cols, x.dtype);
    if (!mine.empty())
        compute.device.embed({.table = table, .ids = mine, .out = rows}, compute.stream);
    sums::gather_selected(compute.tools(), weights.tensor(), "activations:embedding", holder, rows,
                          x);
}

void embed(Compute& compute, const Weights& weights, std::span<const TokenId> ids, Matrix x) {
    look_up(compute, weights, weights.embedding(), ids, x);
}

void embed(Compute& compute, const Weights& weights, const Microbatch& batch,
           const TokenSplit& tokens, Matrix mine) {
    if (!tokens.split()) {
        embed(compute, weights, batch.ids, mine);
        return;
    }
    const kernels::Arena::Scope scope(compute.arena);
    const Matrix whole = compute.matrix(batch.rows(), mine.cols, mine.dtype);
    embed(compute, weights, batch.ids, whole);
    compute.copy(whole.row_range(tokens.mine()), mine);
}

EmbeddingGradient embedding_gradient(Compute& compute, const Weights& weights,
                                     std::span<const TokenId> ids, ConstMatrix dout) {
    EmbeddingGradient gradient{.unique = {ids.begin(), ids.end()}};
    std::vector<TokenId>& unique = gradient.unique;
    std::sort(unique.begin(), unique.end());
    unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
    const Matrix rows = compute.matrix(std::ssize(unique), dout.cols);
    compute.device.embed_gradient({.dout = dout, .ids = ids, .unique = unique, .drows = rows},
                                  compute.stream);
    // Of those that this rank holds, counted from its first.
    const Range own = weights.part().vocabulary;
    const auto first = std::lower_bound(unique.begin(), unique.end(), own.begin);
    const auto last = std::lower_bound(first, unique.end(), own.end);
    gradient.rows = rows.row_range({first - unique.begin(), last - unique.begin()});
    unique.erase(last, unique.end());
    unique.erase(unique.begin(), first);
    for (TokenId& id : unique) id -= narrow<TokenId>(own.begin);
    return gradient;
}

}  // namespace rankwise::model
