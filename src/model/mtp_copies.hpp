// The copies that a pass reads of a module that predicts one token further.
#pragma once

#include <memory>

#include "src/model/packed_layer.hpp"

namespace rankwise::model {

/// What the passes through a module read, beside its layer.
struct MtpWeights {
    DeviceSpan<const float> embedding_norm, hidden_norm, head_norm;
    kernels::PackedWeight projection, projection_back;  ///< eh_proj: y = x W^T, dx = dy W
};

/// Forward and backward. Not safe for use by several threads.
class MtpCopies {
  public:
    /// @param specs    outlives the copies
    /// @param experts  its layer has experts in place of an MLP
    MtpCopies(const kernels::Device& device, const LayerSpecs& specs, std::int64_t hidden,
              bool experts, const Take& take);
    MtpCopies(const MtpCopies&) = delete;  // views refer to it
    MtpCopies& operator=(const MtpCopies&) = delete;

    void pack_forward(Compute& compute, const MtpIds& ids, const ParameterRows& rows);
    void pack_backward(Compute& compute, const MtpIds& ids, const ParameterRows& rows);

    [[nodiscard]] const LayerWeights& layer() const { return layer_.view(); }
    [[nodiscard]] const MtpWeights& view() const { return view_; }

  private:
    void refer_to_vectors(const MtpIds& ids, const ParameterRows& rows);

    kernels::PackSpec projection_spec_, projection_back_spec_;
    PackedLayer layer_;
    PackedCopy projection_, projection_back_;
    MtpWeights view_;
};

}  // namespace rankwise::model
