// The copies that a layer with experts reads of its router and experts.
#pragma once

#include <cstdint>
#include <vector>

#include "src/model/packed_copy.hpp"
#include "src/model/parameters.hpp"

namespace rankwise::model {

/// A gated MLP, gate over up. `*_back`: for the input gradients.
struct MlpWeights {
    kernels::PackedWeight gate_up, down, gate_up_back, down_back;
};

/// What the passes through a layer with experts read.
struct ExpertWeights {
    DeviceSpan<const float> bias;  ///< of the choice; or empty
    kernels::PackedWeight router, router_back;
    std::vector<MlpWeights> routed;  ///< of this rank's experts
    MlpWeights shared;               ///< this rank's columns; without a spec if there are none
};

/// How its matrices are packed. Copies refer to it.
struct ExpertSpecs {
    ExpertSpecs(const ModelConfig& config, const Part& part, const LayerContractions& contractions);
    struct Mlp {
        kernels::PackSpec gate_up, down, gate_up_back, down_back;
    };
    Range experts;  ///< of this rank
    kernels::PackSpec router, router_back;
    Mlp routed;
    bool has_shared = false;
    Mlp shared;
};

/// Not safe for use by several threads.
class ExpertCopies {
  public:
    /// @param specs  outlives the copies
    ExpertCopies(const kernels::Device& device, const ExpertSpecs& specs, Passes passes,
                 const Take& take);

    void pack_forward(Compute& compute, const LayerIds& ids, const ParameterRows& rows);
    void pack_backward(Compute& compute, const LayerIds& ids, const ParameterRows& rows);
    [[nodiscard]] const ExpertWeights& view() const { return view_; }

  private:
    struct Mlp {
        PackedCopy gate_up, down, gate_up_back, down_back;
        [[nodiscard]] MlpWeights view() const {
            return {gate_up.view(), down.view(), gate_up_back.view(), down_back.view()};
        }
        void pack_forward(Compute& compute, const MlpIds& ids, const ParameterRows& rows);
        void pack_backward(Compute& compute, const MlpIds& ids, const ParameterRows& rows);
    };

    [[nodiscard]] std::span<const MlpIds> own_ids(const LayerIds& ids) const;

    const ExpertSpecs* specs_;
    PackedCopy router_, router_back_;
    std::vector<Mlp> routed_;
    Mlp shared_;
    ExpertWeights view_;
};

}  // namespace rankwise::model
