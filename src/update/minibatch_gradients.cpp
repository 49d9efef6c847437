#include "src/update/minibatch_gradients.hpp"

#include <algorithm>

namespace rankwise::update {

using kernels::Matrix;

MinibatchGradients::MinibatchGradients(model::Compute& compute, const model::Weights& weights,
                                       sums::GradientOwners& owners)
    : compute_(compute), weights_(weights), owners_(owners) {
    const ParameterTable& table = weights.table();
    const std::int64_t layers = weights.config().layers + (weights.uses_mtp() ? 1 : 0);
    layer_groups_.resize(static_cast<std::size_t>(layers));
    expert_groups_.resize(static_cast<std::size_t>(layers));
    const model::DecoderParameters& parameters = weights.parameters();
    head_group_ = {parameters.final_norm, parameters.head};
    if (weights.uses_mtp()) {
        const model::MtpIds& module = weights.mtp_ids();
        head_group_ = {parameters.head};
        mtp_group_ = {parameters.final_norm, module.embedding_norm, module.hidden_norm,
                      module.projection, module.head_norm};
    }
    for (ParameterId id = 0; id < table.count(); ++id) {
        if (table[id].layer < 0 || table[id].layer >= layers) continue;
        if (std::ranges::find(mtp_group_, id) != mtp_group_.end()) continue;
        const bool shared_out = weights.expert_data_ranks() > 1 && table[id].expert >= 0;
        auto& groups = shared_out ? expert_groups_ : layer_groups_;
        groups[static_cast<std::size_t>(table[id].layer)].push_back(id);
    }
}

void MinibatchGradients::begin() {
    owners_.reset();
    loads_.clear();
    chunk_loads_.clear();
    const model::DecoderParameters& parameters = weights_.parameters();
    for (std::int64_t layer = 0; layer < std::ssize(layer_groups_); ++layer)
        loads_.emplace_back(parameters.layer(layer).experts.size(), 0);
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
    if (!weights_.uses_mtp()) return;
    // After the decoder's own, whichever rank has the embedding.
    constexpr auto kSource = sums::RowSource::prediction;
    if (part.has_head && part.has_embedding) {
        owners_.finish_rows(embedding, kSource);
    } else if (part.has_head) {
        owners_.send_rows(weights_.pipeline(), 0, embedding, kSource);
    } else if (part.has_embedding) {
        owners_.receive_rows(weights_.pipeline(), part.last_rank(), embedding);
    }
}

model::GradientSlot MinibatchGradients::slot(ParameterId id) {
    if (owners_.data().size() == 1) return {owners_.whole(id), kernels::Output::add};
    const Shape shape = weights_.shape(id);
    const Matrix matrix = compute_.matrix(shape.rows, shape.cols);
    slots_[id] = matrix;
    return {matrix, kernels::Output::store};
}

Range MinibatchGradients::served() const {
    const std::int64_t count = weights_.expert_data_ranks();
    const std::int64_t first = owners_.data().rank() / count * count;
    return {first, first + count};
}

model::GradientSlot MinibatchGradients::expert_slot(ParameterId id, int chunk) {
    const Range ranks = served();
    if (ranks.size() == 1) return slot(id);
    if (!contributes_[static_cast<std::size_t>(ranks.begin + chunk)]) return {};
    if (ranks.size() == owners_.data().size()) {  // nobody else has it
        return {owners_.total(*owners_.owners().piece(owners_.data().rank(), id)),
                kernels::Output::add};
    }
    const Shape shape = weights_.shape(id);
    std::vector<Matrix>& of_chunks = expert_slots_[id];
    of_chunks.resize(static_cast<std::size_t>(ranks.size()));
    Matrix& matrix = of_chunks[static_cast<std::size_t>(chunk)];
    matrix = compute_.matrix(shape.rows, shape.cols);
    return {matrix, kernels::Output::store};
}

void MinibatchGradients::expert_load(std::int64_t layer, std::span<const Range> rows) {
    std::vector<std::int64_t>& load = loads_[static_cast<std::size_t>(layer)];
    for (std::size_t expert = 0; expert < rows.size(); ++expert) {
        load[expert] += rows[expert].size();
        chunk_loads_.push_back(rows[expert].size());
    }
}

sums::GradientOwners::Lookup MinibatchGradients::slots() const {
    return [&](ParameterId id) -> kernels::ConstMatrix { return slots_.at(id); };
}

void MinibatchGradients::layer_done(std::int64_t layer) {
    if (owners_.data().size() == 1) return;
    const auto at = static_cast<std::size_t>(layer);
    if (served().size() < owners_.data().size() && !expert_groups_[at].empty()) {
        owners_.exchange_served("gradients:experts", expert_groups_[at], contributes_,
                                narrow<int>(served().size()), [&](ParameterId id, int chunk) {
                                    return expert_slots_.at(id)[static_cast<std::size_t>(chunk)];
                                });
        expert_slots_.clear();
    }
    owners_.start_exchange("gradients:layer", layer_groups_[at], contributes_, slots());
    slots_.clear();
}

void MinibatchGradients::head_done() {
    if (owners_.data().size() == 1) return;
    // At once: the head may be larger than all layers, and would need room beside its gradient.
    owners_.exchange("gradients:head", head_group_, contributes_, slots());
    slots_.clear();
}

void MinibatchGradients::mtp_done() {
    if (owners_.data().size() == 1) return;
    owners_.exchange("gradients:mtp", mtp_group_, contributes_, slots());
    slots_.clear();
}

void MinibatchGradients::mtp_embedding(std::span<const TokenId> unique, kernels::ConstMatrix rows) {
    owners_.exchange_rows("gradients:embedding", weights_.parameters().embedding, unique, rows,
                          contributes_, sums::RowSource::prediction);
}

void MinibatchGradients::embedding(std::span<const TokenId> unique, kernels::ConstMatrix rows) {
    owners_.exchange_rows("gradients:embedding", weights_.parameters().embedding, unique, rows,
                          contributes_);
}

}  // namespace rankwise::update
