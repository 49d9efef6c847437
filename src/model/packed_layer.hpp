// The copies that a pass reads of one layer, made from its parameters.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "src/model/context.hpp"
#include "src/model/parameters.hpp"

namespace rankwise::model {

/// What the passes through one layer read. Spans are empty where the family has no such parameter.
struct LayerWeights {
    DeviceSpan<const float> input_norm, post_norm, q_norm, k_norm;
    DeviceSpan<const float> qkv_bias, o_bias, gate_up_bias, down_bias;
    kernels::PackedWeight qkv, o, gate_up, down;                      ///< y = x W^T
    kernels::PackedWeight qkv_back, o_back, gate_up_back, down_back;  ///< dx = dy W; training only
};

/// Which passes packed copies must serve.
enum class Passes : std::uint8_t { forward, forward_and_backward };

/// How the matrices of a layer are packed, q k v and gate up being stacked. Copies refer to it.
struct LayerSpecs {
    LayerSpecs(const ModelConfig& config, const Part& part, const LayerContractions& contractions);
    kernels::PackSpec qkv, o, gate_up, down;
    kernels::PackSpec qkv_back, o_back, gate_up_back, down_back;
    std::int64_t qkv_bias = 0, gate_up_bias = 0;  ///< elements of the stacked biases
    bool has_mlp = true;                          ///< whether this rank has columns of the MLP
};

/// Gives out memory of the device that lives as long as what is made in it.
using Take = std::function<DeviceSpan<std::byte>(std::int64_t bytes)>;

/// A packed matrix that can be made anew.
class PackedCopy {
  public:
    PackedCopy() = default;
    /// @param spec  outlives the copy
    PackedCopy(const kernels::Device& device, const kernels::PackSpec& spec, const Take& take)
        : spec_(&spec), data_(take(device.packed_bytes(spec))) {}
    void pack(Compute& compute, kernels::PackSide side,
              std::span<const kernels::ConstMatrix> stacked) {
        compute.device.pack(*spec_, side, stacked, data_, compute.stream);
    }
    [[nodiscard]] kernels::PackedWeight view() const { return {spec_, data_}; }

  private:
    const kernels::PackSpec* spec_ = nullptr;
    DeviceSpan<std::byte> data_;
};

/// Not safe for use by several threads.
class PackedLayer {
  public:
    /// Rows of a parameter of the layer, in order, wherever they lie; of a vector: one row. They
    /// must stay where they are while the copies are read: vectors are not copied.
    using Rows = std::function<std::span<const kernels::ConstMatrix>(ParameterId)>;

    /// @param specs  outlives the copies
    PackedLayer(const kernels::Device& device, const LayerSpecs& specs, Passes passes,
                const Take& take);

    /// Copies for the forward pass, or for the backward pass alone.
    void pack_forward(Compute& compute, const LayerIds& ids, const Rows& rows);
    void pack_backward(Compute& compute, const LayerIds& ids, const Rows& rows);

    [[nodiscard]] const LayerWeights& view() const { return view_; }

  private:
    void refer_to_vectors(const LayerIds& ids, const Rows& rows);

    const LayerSpecs* specs_;
    PackedCopy qkv_, o_, gate_up_, down_, qkv_back_, o_back_, gate_up_back_, down_back_;
    DeviceSpan<float> qkv_bias_, gate_up_bias_;
    LayerWeights view_;
};

}  // namespace rankwise::model
