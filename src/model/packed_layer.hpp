// The copies that a pass reads of one layer, made from its parameters.
#pragma once

#include <memory>

#include "src/model/expert_copies.hpp"
#include "src/model/latent_copies.hpp"
#include "src/model/packed_copy.hpp"
#include "src/model/parameters.hpp"

namespace rankwise::model {

/// What the passes through one layer read. Spans are empty where the family has no such parameter.
struct LayerWeights {
    DeviceSpan<const float> input_norm, post_norm, q_norm, k_norm;
    DeviceSpan<const float> qkv_bias, o_bias, gate_up_bias, down_bias;
    kernels::PackedWeight qkv, o, gate_up, down;                      ///< y = x W^T
    kernels::PackedWeight qkv_back, o_back, gate_up_back, down_back;  ///< dx = dy W; training only
    const LatentWeights* latent = nullptr;                            ///< in place of qkv
    const ExpertWeights* experts = nullptr;                           ///< in place of gate_up, down
};

/// How the matrices of a layer are packed, q k v and gate up being stacked. Copies refer to it.
struct LayerSpecs {
    LayerSpecs(const ModelConfig& config, const Part& part, const LayerContractions& contractions);
    kernels::PackSpec qkv, o, gate_up, down;
    kernels::PackSpec qkv_back, o_back, gate_up_back, down_back;
    std::int64_t qkv_bias = 0, gate_up_bias = 0;  ///< elements of the stacked biases
    bool has_mlp = true;                          ///< whether this rank has columns of the MLP
    std::unique_ptr<LatentSpecs> latent;          ///< of latent attention
    std::unique_ptr<ExpertSpecs> experts;
};

/// Not safe for use by several threads.
class PackedLayer {
  public:
    /// @param specs    outlives the copies
    /// @param experts  the layer has experts in place of an MLP
    PackedLayer(const kernels::Device& device, const LayerSpecs& specs, bool experts, Passes passes,
                const Take& take);

    /// Copies for the forward pass, or for the backward pass alone.
    void pack_forward(Compute& compute, const LayerIds& ids, const ParameterRows& rows);
    void pack_backward(Compute& compute, const LayerIds& ids, const ParameterRows& rows);

    [[nodiscard]] const LayerWeights& view() const { return view_; }

  private:
    void refer_to_vectors(const LayerIds& ids, const ParameterRows& rows);

    const LayerSpecs* specs_;
    PackedCopy qkv_, o_, gate_up_, down_, qkv_back_, o_back_, gate_up_back_, down_back_;
    DeviceSpan<float> qkv_bias_, gate_up_bias_;
    std::unique_ptr<LatentCopies> latent_;
    std::unique_ptr<ExpertCopies> experts_;
    LayerWeights view_;
};

}  // namespace rankwise::model
