#include "src/model/decoder.hpp"

#include "src/model/stage_mail.hpp"

namespace rankwise::model {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;

/// Whether the backward pass computes a layer's activations again.
bool computed_again(const LayerStage& stage, std::int64_t layer, std::int64_t recompute) {
    return layer - stage.layers.begin < recompute;
}

Logprobs download(Compute& compute, const HeadOutputs& head) {
    return {compute.device.Memory::download<float>(head.logprob, compute.stream),
            compute.device.Memory::download<float>(head.entropy, compute.stream)};
}

}  // namespace

void gather_forward(Compute& compute, const Weights& weights, const LayerStage& stage,
                    std::int64_t layer) {
    weights.gather_layer(compute, layer, Copies::forward,
                         layer + 1 == stage.layers.end ? std::nullopt : std::optional(layer + 1));
}

void gather_backward(Compute& compute, const Weights& weights, const LayerStage& stage,
                     std::int64_t layer, std::int64_t recompute) {
    // Who computes experts that are shared out computes what they keep inside again.
    const bool again = computed_again(stage, layer, recompute) ||
                       (weights.shares_experts() && weights.config().has_experts(layer));
    if (again) weights.gather_layer(compute, layer, Copies::forward, std::nullopt);
    weights.gather_layer(compute, layer, Copies::backward,
                         layer == stage.layers.begin ? std::nullopt : std::optional(layer - 1));
}

void gather_put_off(Compute& compute, const Weights& weights, const LayerStage& stage,
                    std::int64_t layer) {
    const auto read = [&](std::int64_t l) {
        return weights.shares_experts() && !weights.splits_chunks_over_experts() &&
               stage.layers.contains(l) && weights.config().has_experts(l);
    };
    if (!read(layer)) return;
    weights.gather_layer(compute, layer, Copies::forward, std::nullopt);
    weights.gather_layer(compute, layer, Copies::backward,
                         read(layer - 1) ? std::optional(layer - 1) : std::nullopt);
}

void follow_forward(Compute& compute, const Weights& weights, const LayerStage& stage) {
    FollowPass(compute, weights, stage).forward();
}

void FollowPass::experts_forward(std::int64_t layer) {
    auto& plan = plans_[static_cast<std::size_t>(layer - stage_.layers.begin)];
    if (weights_.expert_data_ranks() == 1 || !weights_.config().has_experts(layer)) return;
    const std::vector<Range> none(static_cast<std::size_t>(weights_.config().experts.routed));
    plan = plan_dispatch(weights_, none);
    const Matrix rows = compute_.matrix(0, weights_.config().hidden);
    dispatched_forward(compute_, weights_, layer, *plan, rows, {}, rows);
}

void FollowPass::forward() {
    plans_.resize(static_cast<std::size_t>(stage_.layers.size() + (has_module_ ? 1 : 0)));
    if (stage_.first && weights_.pipeline_part().has_embedding) weights_.gather_embedding(compute_);
    for (std::int64_t layer = stage_.layers.begin; layer < stage_.layers.end; ++layer) {
        gather_forward(compute_, weights_, stage_, layer);
        experts_forward(layer);
    }
    if (stage_.last) weights_.gather_head(compute_, Copies::forward);
    if (!has_module_) return;
    weights_.gather_mtp_embedding(compute_);
    weights_.gather_layer(compute_, weights_.mtp_layer(), Copies::forward, std::nullopt);
    experts_forward(weights_.mtp_layer());
}

void FollowPass::module_backward(GradientSink& gradients) {
    gather_mtp_backward(compute_, weights_);
    const kernels::Arena::Scope scope(compute_.arena);
    if (const auto& plan = plans_.back()) {
        const Matrix rows = compute_.matrix(0, weights_.config().hidden);
        dispatched_backward(compute_, weights_, weights_.mtp_layer(), *plan, rows, {}, rows, rows,
                            &gradients);
    }
    gradients.layer_done(weights_.mtp_layer());
    gradients.mtp_done();
    gradients.mtp_embedding({}, {});
}

void FollowPass::backward(bool input, bool weight, GradientSink& gradients) {
    if (input && stage_.last) {
        weights_.gather_head(compute_, Copies::backward);
        gradients.head_done();
        if (has_module_) module_backward(gradients);
    }
    for (std::int64_t layer = stage_.layers.end; layer-- > stage_.layers.begin;) {
        const kernels::Arena::Scope scope(compute_.arena);
        if (input) {
            gather_backward(compute_, weights_, stage_, layer, recompute_);
            if (computed_again(stage_, layer, recompute_)) experts_forward(layer);
        } else {
            gather_put_off(compute_, weights_, stage_, layer);
        }
        if (const auto& plan = plans_[static_cast<std::size_t>(layer - stage_.layers.begin)]) {
            const Matrix rows = compute_.matrix(0, weights_.config().hidden);
            dispatched_backward(compute_, weights_, layer, *plan, rows, {}, rows,
                                input ? rows : Matrix(), weight ? &gradients : nullptr);
        }
        if (weight) gradients.layer_done(layer);
    }
    if (weight && stage_.first) gradients.embedding({}, {});
}

Logprobs score(Compute& compute, const Weights& weights, const HeadOptions& head,
               const Microbatch& batch) {
    return score(compute, weights, head, std::span(&batch, 1)).front();
}

std::vector<Logprobs> score(Compute& compute, const Weights& weights, const HeadOptions& head,
                            std::span<const Microbatch> batches) {
    std::vector<Logprobs> values(batches.size());
    StageMail mail(compute, weights, batches);
    for (const parallel::PipelineStep& step : mail.forward_steps()) {
        const Microbatch& batch = batches[static_cast<std::size_t>(step.micro_batch)];
        const LayerStage& stage =
            weights.pipeline_part().stages[static_cast<std::size_t>(step.virtual_stage)];
        if (batch.rows() == 0) {
            mail.pass_by(step);
            follow_forward(compute, weights, stage);
            continue;
        }
        const kernels::Arena::Scope scope(compute.arena);
        const TokenSplit tokens(weights, batch);
        const Matrix x = stage.last ? compute.matrix(tokens.mine().size(), weights.config().hidden,
                                                     weights.config().dtype)
                                    : mail.room(tokens);
        mail.receive(step, batch, tokens, x);
        for (std::int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
            const kernels::Arena::Scope layer_scope(compute.arena);
            gather_forward(compute, weights, stage, layer);
            (void)layer_forward_keep(compute, weights, layer, batch, x);
        }
        if (!stage.last) {
            mail.send();
            continue;
        }
        weights.gather_head(compute, Copies::forward);
        const Matrix top = whole_rows(compute, weights, tokens, "activations:top", x);
        HeadOptions once = head;
        once.logits = LogitsUse::recompute;  // nobody goes back
        values[static_cast<std::size_t>(step.micro_batch)] =
            download(compute, head_forward(compute, weights, once, batch, top));
    }
    return values;
}

StagePass::StagePass(Compute& compute, const Weights& weights, const HeadOptions& head,
                     const Microbatch& batch, const LayerStage& stage, std::int64_t recompute)
    : compute_(compute),
      weights_(weights),
      head_options_(head),
      batch_(batch),
      stage_(stage),
      recompute_(recompute),
      scope_(compute.kept().arena),
      tokens_(weights, batch),
      x_(compute.kept_matrix(tokens_.mine().size(), weights.config().hidden,
                             weights.config().dtype)) {
    if (weights.pipeline_part().split())
        gradient_ = compute.kept_matrix(x_.rows, x_.cols, x_.dtype);
    kept_.reserve(static_cast<std::size_t>(stage.layers.size()));  // what is put off refers to it
}

void StagePass::forward() {
    if (stage_.first && weights_.pipeline_part().has_embedding) {
        weights_.gather_embedding(compute_);
        embed(compute_, weights_, batch_, tokens_, x_);
    }
    for (std::int64_t layer = stage_.layers.begin; layer < stage_.layers.end; ++layer) {
        gather_forward(compute_, weights_, stage_, layer);
        if (computed_again(stage_, layer, recompute_)) {
            inputs_.push_back(compute_.kept_matrix(x_.rows, x_.cols, x_.dtype));
            compute_.copy(x_, inputs_.back());
            Compute scratch = compute_.in_scratch();
            const kernels::Arena::Scope layer_scope(scratch.arena);
            (void)layer_forward_keep(scratch, weights_, layer, batch_, x_);
        } else {
            kept_.push_back(layer_forward_keep(compute_, weights_, layer, batch_, x_));
        }
    }
    if (!stage_.last) return;
    weights_.gather_head(compute_, Copies::forward);
    top_ = x_;
    if (tokens_.split()) {
        top_ = compute_.kept_matrix(tokens_.total(), x_.cols, x_.dtype);
        gather_rows(compute_, weights_, tokens_, "activations:top", x_, top_);
    }
    head_ = head_forward(compute_, weights_, head_options_, batch_, top_);
}

Logprobs StagePass::logprobs() {
    return download(compute_, head_);
}

Matrix StagePass::output_gradient(std::span<const float> coefficient, GradientSink& gradients) {
    if (!stage_.last) return gradient_;
    ensure(coefficient.size() == batch_.head.size() + batch_.further.size(),
           "{} coefficients for {} head rows", coefficient.size(),
           batch_.head.size() + batch_.further.size());
    const bool one_rank = !weights_.pipeline_part().split();
    const bool own_is_whole = !one_rank && !tokens_.split();
    weights_.gather_head(compute_, Copies::backward);
    const Matrix dtop =
        own_is_whole ? gradient_ : compute_.matrix(top_.rows, top_.cols, top_.dtype);
    head_backward(compute_, weights_, head_options_, batch_, top_, head_, coefficient, dtop,
                  gradients);
    if (!tokens_.split()) return dtop;
    const Matrix own = one_rank ? compute_.matrix(x_.rows, x_.cols, x_.dtype) : gradient_;
    compute_.copy(dtop.row_range(tokens_.mine()), own);
    return own;
}

void StagePass::backward(std::span<const float> coefficient, GradientSink& gradients) {
    const kernels::Arena::Scope scope(compute_.arena);
    const Matrix dx = output_gradient(coefficient, gradients);
    for (std::int64_t layer = stage_.layers.end; layer-- > stage_.layers.begin;) {
        gather_backward(compute_, weights_, stage_, layer, recompute_);
        const auto at = static_cast<std::size_t>(layer - stage_.layers.begin);
        if (!computed_again(stage_, layer, recompute_)) {
            layer_backward(compute_, weights_, layer, batch_, kept_[at - inputs_.size()], dx,
                           gradients);
            continue;
        }
        Compute scratch = compute_.in_scratch();
        const kernels::Arena::Scope layer_scope(scratch.arena);
        const Matrix x = scratch.matrix(x_.rows, x_.cols, x_.dtype);
        scratch.copy(inputs_[at], x);
        const LayerActivations kept = layer_forward_keep(scratch, weights_, layer, batch_, x);
        layer_backward(scratch, weights_, layer, batch_, kept, dx, gradients);
    }
    if (stage_.first) embedding_gradient(dx, gradients);
}

void StagePass::backward_input(std::span<const float> coefficient, GradientSink& gradients) {
    const kernels::Arena::Scope scope(compute_.arena);
    const Matrix dx = output_gradient(coefficient, gradients);
    for (std::int64_t layer = stage_.layers.end; layer-- > stage_.layers.begin;) {
        gather_backward(compute_, weights_, stage_, layer, recompute_);
        const auto at = static_cast<std::size_t>(layer - stage_.layers.begin);
        if (!computed_again(stage_, layer, recompute_)) {
            layer_backward_input(compute_, weights_, layer, batch_, kept_[at - inputs_.size()], dx,
                                 later_.emplace_back());
            continue;
        }
        // What is computed again is read once more by what is put off.
        const kernels::Arena::Scope layer_scope(compute_.arena);
        const Matrix x = compute_.matrix(x_.rows, x_.cols, x_.dtype);
        compute_.copy(inputs_[at], x);
        kept_.push_back(layer_forward_keep(compute_, weights_, layer, batch_, x));
        layer_backward_input(compute_, weights_, layer, batch_, kept_.back(), dx,
                             later_.emplace_back());
    }
}

void StagePass::backward_weight(GradientSink& gradients) {
    const kernels::Arena::Scope scope(compute_.arena);
    std::int64_t layer = stage_.layers.end;
    for (const WeightWork& put_off : later_) {
        const kernels::Arena::Scope layer_scope(compute_.arena);
        gather_put_off(compute_, weights_, stage_, --layer);
        for (const auto& work : put_off) work(gradients);
    }
    later_.clear();
    if (stage_.first) embedding_gradient(gradient_, gradients);
}

void StagePass::embedding_gradient(Matrix dx, GradientSink& gradients) {
    const Matrix dout = whole_rows(compute_, weights_, tokens_, "activations:gradient", dx);
    const EmbeddingGradient gradient =
        model::embedding_gradient(compute_, weights_, batch_.ids, dout);
    gradients.embedding(gradient.unique, gradient.rows);
}

}  // namespace rankwise::model
