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

void MinibatchGradients::absent_head(const model::LayerStage& stage) {
    if (owners_.data().size() > 1 && stage.last) head_done();
}

void MinibatchGradients::absent_layers(const model::LayerStage& stage) {
    if (owners_.data().size() == 1) return;
    for (std::int64_t layer = stage.layers.end; layer-- > stage.layers.begin;) layer_done(layer);
    if (stage.first) embedding({}, {});
}

void MinibatchGradients::finish() {
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

void MinibatchGradients::exchange(const char* label, std::span<const ParameterId> group) {
    if (owners_.data().size() == 1) return;
    owners_.exchange(label, group, contributes_,
                     [&](ParameterId id) -> kernels::ConstMatrix { return slots_.at(id); });
    slots_.clear();
}

void MinibatchGradients::layer_done(std::int64_t layer) {
    exchange("gradients:layer", layer_groups_[static_cast<std::size_t>(layer)]);
}

void MinibatchGradients::head_done() {
    exchange("gradients:head", head_group_);
}

void MinibatchGradients::embedding(std::span<const TokenId> unique, kernels::ConstMatrix rows) {
    owners_.exchange_rows("gradients:embedding", weights_.parameters().embedding, unique, rows,
                          contributes_);
}

}  // namespace rankwise::update
