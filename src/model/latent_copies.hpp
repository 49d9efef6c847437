// The copies that latent attention reads of its layer.
#pragma once

#include <cstdint>
#include <vector>

#include "src/model/packed_copy.hpp"
#include "src/model/parameters.hpp"

namespace rankwise::model {

/// What the passes through latent attention read. Each head's rows of kv_b are two matrices, W_k
/// [nope_dim, kv_rank] and W_v [value_dim, kv_rank].
struct LatentWeights {
    DeviceSpan<const float> q_a_norm, kv_a_norm;
    kernels::PackedWeight q_a;  ///< only with compressed queries
    kernels::PackedWeight q;    ///< q_b, or q_proj
    kernels::PackedWeight kv_a;
    std::vector<kernels::PackedWeight> k_up;  ///< by head: y = x W_k, from nope to latent
    std::vector<kernels::PackedWeight> v_up;  ///< by head: y = x W_v^T, from latent to value
    kernels::PackedWeight q_a_back, q_back, kv_a_back;
    std::vector<kernels::PackedWeight> k_up_back, v_up_back;
};

/// How its matrices are packed. Copies refer to it.
struct LatentSpecs {
    LatentSpecs(const ModelConfig& config, const Part& part, const LayerContractions& contractions);
    LatentConfig sizes;
    std::int64_t heads = 0;
    kernels::PackSpec q_a, q, kv_a, k_up, v_up;
    kernels::PackSpec q_a_back, q_back, kv_a_back, k_up_back, v_up_back;
};

/// Not safe for use by several threads.
class LatentCopies {
  public:
    /// @param specs  outlives the copies
    LatentCopies(const kernels::Device& device, const LatentSpecs& specs, Passes passes,
                 const Take& take);

    void pack_forward(Compute& compute, const LayerIds& ids, const ParameterRows& rows);
    void pack_backward(Compute& compute, const LayerIds& ids, const ParameterRows& rows);
    [[nodiscard]] const LatentWeights& view() const { return view_; }

  private:
    void refer_to_vectors(const LayerIds& ids, const ParameterRows& rows);

    const LatentSpecs* specs_;
    PackedCopy q_a_, q_, kv_a_, q_a_back_, q_back_, kv_a_back_;
    std::vector<PackedCopy> k_up_, v_up_, k_up_back_, v_up_back_;
    LatentWeights view_;
};

}  // namespace rankwise::model
