// The sink of a minibatch's gradients: straight into the totals on one data rank, through their
// owners on several.
#pragma once

#include <span>
#include <vector>

#include "src/model/gradients.hpp"
#include "src/model/weights.hpp"
#include "src/sums/gradient_owners.hpp"
#include "src/update/router_bias.hpp"

namespace rankwise::update {

class MinibatchGradients final : public model::GradientSink {
  public:
    MinibatchGradients(model::Compute& compute, const model::Weights& weights,
                       sums::GradientOwners& owners);

    /// Before a minibatch.
    void begin();
    /// Gradients are of this wave from now on: which data ranks have a chunk in it.
    void begin_wave(std::vector<bool> contributes);
    /// After the last wave: the totals are complete. Collective over the pipeline axis.
    void finish();

    /// Of this rank's chunks of the minibatch.
    [[nodiscard]] const ExpertLoads& expert_loads() const { return loads_; }
    /// The same of each chunk and layer by itself, one after another; alike in length and order on
    /// all tensor ranks.
    [[nodiscard]] std::span<const std::int64_t> chunk_loads() const { return chunk_loads_; }

    model::GradientSlot slot(ParameterId id) override;
    model::GradientSlot expert_slot(ParameterId id, int chunk) override;
    void expert_load(std::int64_t layer, std::span<const Range> rows) override;
    void layer_done(std::int64_t layer) override;
    void head_done() override;
    void mtp_done() override;
    void mtp_embedding(std::span<const TokenId> unique, kernels::ConstMatrix rows) override;
    void embedding(std::span<const TokenId> unique, kernels::ConstMatrix rows) override;

  private:
    [[nodiscard]] sums::GradientOwners::Lookup slots() const;

    model::Compute& compute_;
    const model::Weights& weights_;
    sums::GradientOwners& owners_;
    /// Data ranks whose chunks are computed here too, by a routed expert of this rank.
    [[nodiscard]] Range served() const;

    std::vector<std::vector<ParameterId>> layer_groups_;
    std::vector<std::vector<ParameterId>> expert_groups_;  // that several data ranks share out
    std::vector<ParameterId> head_group_;
    std::vector<ParameterId> mtp_group_;  // of a module that is trained, with the final norm
    std::vector<bool> contributes_;
    ExpertLoads loads_;
    std::vector<std::int64_t> chunk_loads_;
    std::unordered_map<ParameterId, kernels::Matrix>
        slots_;  // of the group under way, several ranks
    std::unordered_map<ParameterId, std::vector<kernels::Matrix>>
        expert_slots_;  // likewise, one for each chunk
};

}  // namespace rankwise::update
