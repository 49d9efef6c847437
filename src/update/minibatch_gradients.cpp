#include "src/update/minibatch_gradients.hpp"

namespace rankwise::update {

using kernels::Matrix;

MinibatchGradients::MinibatchGradients(model::Compute& compute, const model::Weights& weights,
                                       sums::GradientOwners& owners)
    : compute_(compute), weights_(weights), owners_(owners) {
    const ParameterTable& table = weights.table();
    layer_groups_.resize(static_cast<std::size_t>(weights.config().layers));
    for (ParameterId id = 0; id < table.count(); ++id) {
        const int layer = table[id].layer;
        if (layer >= 0) layer_groups_[static_cast<std::size_t>(layer)].push_back(id);
    }
    head_group_ = {weights.parameters().final_norm, weights.parameters().head};
}

void MinibatchGradients::begin() {
    owners_.reset();
    loads_.clear();
    for (const model::LayerIds& layer : weights_.parameters().layers)
        loads_.emplace_back(layer.experts.size(), 0);
}

void MinibatchGradients::begin_wave(std::vector<bool> contributes) {
    contributes_ = std::move(contributes);
    slots_.clear();
}

void MinibatchGradients::finish() {
    owners_.finish_exchange();
    const model::PipelinePart& part = weights_.pipeline_part();
    const ParameterId embedding = weights_.parameters().embedding;
    if (part.looks_up_elsewhere()) {
        owners_.send_rows(weights_.pipeline(), part.last_rank(), embedding);
    } else if (part.looks_up_for_first()) {
        owners_.receive_rows(weights_.pipeline(), 0, embedding);
    } else {
        owners_.finish_rows(embedding);
    }
}

model::GradientSlot MinibatchGradients::slot(ParameterId id) {
    if (owners_.data().size() == 1) return {owners_.whole(id), kernels::Output::add};
    const Shape shape = weights_.shape(id);
    const Matrix matrix = compute_.matrix(shape.rows, shape.cols);
    slots_[id] = matrix;
    return {matrix, kernels::Output::store};
}

void MinibatchGradients::expert_load(std::int64_t layer, std::span<const Range> rows) {
    std::vector<std::int64_t>& load = loads_[static_cast<std::size_t>(layer)];
    for (std::size_t expert = 0; expert < rows.size(); ++expert)
        load[expert] += rows[expert].size();
}

sums::GradientOwners::Lookup MinibatchGradients::slots() const {
    return [&](ParameterId id) -> kernels::ConstMatrix { return slots_.at(id); };
}

void MinibatchGradients::layer_done(std::int64_t layer) {
    if (owners_.data().size() == 1) return;
    owners_.start_exchange("gradients:layer", layer_groups_[static_cast<std::size_t>(layer)],
                           contributes_, slots());
    slots_.clear();
}

void MinibatchGradients::head_done() {
    if (owners_.data().size() == 1) return;
    // At once: the head may be larger than all layers, and would need room beside its gradient.
    owners_.exchange("gradients:head", head_group_, contributes_, slots());
    slots_.clear();
}

void MinibatchGradients::embedding(std::span<const TokenId> unique, kernels::ConstMatrix rows) {
    owners_.exchange_rows("gradients:embedding", weights_.parameters().embedding, unique, rows,
                          contributes_);
}

}  // namespace rankwise::update
