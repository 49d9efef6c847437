// Gradients of a training pass of a small model, kept whole.
#pragma once

#include "src/model/decoder.hpp"
#include "tests/support/small_model.hpp"

namespace rankwise::test {

/// Of each parameter this rank's part, from zero; those of the embedding's rows are added to it.
class PassGradients : public model::GradientSink {
  public:
    explicit PassGradients(SmallModel& rank) : rank_(rank) {
        for (const Shape shape : rank.weights.shapes()) {
            buffers_.emplace_back(*rank.device, shape.size());
            rank.device->zero(cast_span<std::byte>(buffers_.back().span()), rank.device.stream());
        }
    }
    model::GradientSlot slot(ParameterId id) override {
        const Shape shape = rank_.weights.shape(id);
        return {{buffers_[static_cast<std::size_t>(id)].span(), shape.rows, shape.cols},
                kernels::Output::add};
    }
    void layer_done(std::int64_t /*layer*/) override {}
    void head_done() override {}
    void embedding(std::span<const TokenId> unique, kernels::ConstMatrix rows) override {
        const kernels::Matrix all = slot(rank_.weights.parameters().embedding).matrix;
        for (std::size_t u = 0; u < unique.size(); ++u) {
            const auto from = static_cast<std::int64_t>(u);
            rank_.device->add({.from = rows.row_range({from, from + 1}),
                               .to = all.row_range({unique[u], unique[u] + 1})},
                              rank_.device.stream());
        }
    }
    void mtp_embedding(std::span<const TokenId> unique, kernels::ConstMatrix rows) override {
        embedding(unique, rows);
    }
    [[nodiscard]] std::vector<float> values(ParameterId id) const {
        return rank_.device.get(
            DeviceSpan<const float>(buffers_[static_cast<std::size_t>(id)].span()));
    }
    /// Of all parameters.
    [[nodiscard]] std::vector<std::vector<float>> values() const {
        std::vector<std::vector<float>> all;
        for (ParameterId id = 0; id < rank_.weights.table().count(); ++id)
            all.push_back(values(id));
        return all;
    }

  private:
    SmallModel& rank_;
    std::vector<kernels::DeviceBuffer<float>> buffers_;
};

/// Forward and backward with coefficients that differ from row to row.
inline void run_backward(SmallModel& rank, const model::HeadOptions& head,
                         const model::Microbatch& batch, std::int64_t recompute,
                         PassGradients& gradients) {
    std::vector<float> coefficient;
    for (std::size_t i = 0; i < batch.head.size(); ++i)
        coefficient.push_back(0.1F * static_cast<float>(i) - 0.4F);
    model::TrainingPass pass(rank.compute, rank.weights, head, batch, recompute);
    pass.backward(coefficient, gradients);
}

}  // namespace rankwise::test
