#include "src/model/decoder.hpp"

#include <algorithm>

#include "src/model/token_split.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;

/// This rank's rows of a matrix that has all.
Matrix own_rows(Compute& compute, const TokenSplit& tokens, Matrix whole) {
    if (!tokens.split()) return whole;
    const Matrix mine = compute.matrix(tokens.mine().size(), whole.cols);
    compute.copy(whole.row_range(tokens.mine()), mine);
    return mine;
}

/// The residual stream's own rows before the first layer.
Matrix embed(Compute& compute, const Weights& weights, const Microbatch& batch,
             const TokenSplit& tokens) {
    weights.gather_embedding(compute);
    const std::int64_t hidden = weights.config().hidden;
    const Matrix mine = compute.matrix(tokens.mine().size(), hidden);
    const kernels::Arena::Scope scope(compute.arena);
    const Matrix whole = tokens.split() ? compute.matrix(batch.rows(), hidden) : mine;
    embed(compute, weights, batch.ids, whole);
    if (tokens.split()) compute.copy(whole.row_range(tokens.mine()), mine);
    return mine;
}

/// What gather_forward() does, for the backward pass.
void gather_backward(Compute& compute, const Weights& weights, std::int64_t layer, bool recompute) {
    const std::optional<std::int64_t> next = layer == 0 ? std::nullopt : std::optional(layer - 1);
    if (recompute) weights.gather_layer(compute, layer, Copies::forward, std::nullopt);
    weights.gather_layer(compute, layer, Copies::backward, next);
}

Logprobs download(Compute& compute, const HeadOutputs& head) {
    return {compute.device.Memory::download<float>(head.logprob, compute.stream),
            compute.device.Memory::download<float>(head.entropy, compute.stream)};
}

}  // namespace

void embed(Compute& compute, const Weights& weights, std::span<const TokenId> ids, Matrix x) {
    if (!weights.split()) {
        compute.device.embed({.table = weights.embedding(), .ids = ids, .out = x}, compute.stream);
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
    const Matrix rows = compute.matrix(std::ssize(mine), x.cols);
    if (!mine.empty())
        compute.device.embed({.table = weights.embedding(), .ids = mine, .out = rows},
                             compute.stream);
    sums::gather_selected(compute.tools(), weights.tensor(), "activations:embedding", holder, rows,
                          x);
}

void gather_forward(Compute& compute, const Weights& weights, std::int64_t layer) {
    const bool last = layer + 1 == weights.config().layers;
    weights.gather_layer(compute, layer, Copies::forward,
                         last ? std::nullopt : std::optional(layer + 1));
}

Logprobs score(Compute& compute, const Weights& weights, const HeadOptions& head,
               const Microbatch& batch) {
    const kernels::Arena::Scope scope(compute.arena);
    const TokenSplit tokens(weights, batch);
    const Matrix x = embed(compute, weights, batch, tokens);
    for (std::int64_t layer = 0; layer < weights.config().layers; ++layer) {
        const kernels::Arena::Scope layer_scope(compute.arena);
        gather_forward(compute, weights, layer);
        (void)layer_forward_keep(compute, weights, layer, batch, x);
    }
    weights.gather_head(compute, Copies::forward);
    const Matrix top = whole_rows(compute, weights, tokens, "activations:top", x);
    return download(compute, head_forward(compute, weights, head, batch, top));
}

void follow_score(Compute& compute, const Weights& weights) {
    weights.gather_embedding(compute);
    for (std::int64_t layer = 0; layer < weights.config().layers; ++layer)
        gather_forward(compute, weights, layer);
    weights.gather_head(compute, Copies::forward);
}

void follow_training_pass(Compute& compute, const Weights& weights, bool recompute,
                          GradientSink& gradients) {
    follow_score(compute, weights);
    weights.gather_head(compute, Copies::backward);
    gradients.head_done();
    for (std::int64_t layer = weights.config().layers; layer-- > 0;) {
        gather_backward(compute, weights, layer, recompute);
        gradients.layer_done(layer);
    }
    gradients.embedding({}, {});
}

TrainingPass::TrainingPass(Compute& compute, const Weights& weights, const HeadOptions& head,
                           const Microbatch& batch, bool recompute)
    : compute_(compute),
      weights_(weights),
      head_options_(head),
      batch_(batch),
      recompute_(recompute),
      scope_(compute.arena),
      tokens_(std::make_unique<TokenSplit>(weights, batch)),
      x_(embed(compute, weights, batch, *tokens_)) {
    for (std::int64_t layer = 0; layer < weights.config().layers; ++layer) {
        gather_forward(compute, weights, layer);
        if (recompute) {
            inputs_.push_back(compute.matrix(x_.rows, x_.cols));
            compute.copy(x_, inputs_.back());
            const kernels::Arena::Scope layer_scope(compute.arena);
            (void)layer_forward_keep(compute, weights, layer, batch, x_);
        } else {
            kept_.push_back(layer_forward_keep(compute, weights, layer, batch, x_));
        }
    }
    weights.gather_head(compute, Copies::forward);
    top_ = whole_rows(compute, weights, *tokens_, "activations:top", x_);
    head_ = head_forward(compute, weights, head, batch, top_);
}

TrainingPass::~TrainingPass() = default;

Logprobs TrainingPass::logprobs() {
    return download(compute_, head_);
}

void TrainingPass::backward(std::span<const float> coefficient, GradientSink& gradients) {
    ensure(coefficient.size() == batch_.head.size(), "{} coefficients for {} head rows",
           coefficient.size(), batch_.head.size());
    const kernels::Arena::Scope scope(compute_.arena);
    const Matrix dtop = compute_.matrix(top_.rows, top_.cols);
    weights_.gather_head(compute_, Copies::backward);
    head_backward(compute_, weights_, head_options_, batch_, top_, head_, coefficient, dtop,
                  gradients);
    const Matrix dx = own_rows(compute_, *tokens_, dtop);
    for (std::int64_t layer = weights_.config().layers; layer-- > 0;) {
        const auto at = static_cast<std::size_t>(layer);
        gather_backward(compute_, weights_, layer, recompute_);
        if (!recompute_) {
            layer_backward(compute_, weights_, layer, batch_, kept_[at], dx, gradients);
            continue;
        }
        const kernels::Arena::Scope layer_scope(compute_.arena);
        const Matrix x = compute_.matrix(x_.rows, x_.cols);
        compute_.copy(inputs_[at], x);
        const LayerActivations kept = layer_forward_keep(compute_, weights_, layer, batch_, x);
        layer_backward(compute_, weights_, layer, batch_, kept, dx, gradients);
    }

    std::vector<TokenId> unique = batch_.ids;
    std::sort(unique.begin(), unique.end());
    unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
    const Matrix rows = compute_.matrix(static_cast<std::int64_t>(unique.size()), x_.cols);
    const Matrix dout = whole_rows(compute_, weights_, *tokens_, "activations:gradient", dx);
    compute_.device.embed_gradient(
        {.dout = dout, .ids = batch_.ids, .unique = unique, .drows = rows}, compute_.stream);
    // Of those that this rank holds, counted from its first.
    const Range own = weights_.part().vocabulary;
    const auto first = std::lower_bound(unique.begin(), unique.end(), own.begin);
    const auto last = std::lower_bound(first, unique.end(), own.end);
    const Range held{first - unique.begin(), last - unique.begin()};
    unique.erase(last, unique.end());
    unique.erase(unique.begin(), first);
    for (TokenId& id : unique) id -= narrow<TokenId>(own.begin);
    gradients.embedding(unique, rows.row_range(held));
}

}  // namespace rankwise::model
