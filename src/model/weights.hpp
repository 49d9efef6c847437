// The weights of one model on this rank: fp32 masters, and the packed copies that matmuls read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/model/context.hpp"
#include "src/model/parameters.hpp"

namespace rankwise::model {

/// A packed matrix with the spec that it was packed by.
class Packed {
  public:
    Packed() = default;
    Packed(kernels::Device& device, kernels::PackSpec spec);
    [[nodiscard]] kernels::PackedWeight view() const;
    void pack(Compute& compute, kernels::PackSide side,
              std::span<const kernels::ConstMatrix> stacked);

  private:
    std::unique_ptr<kernels::PackSpec> spec_;  // at a fixed address: views point to it
    kernels::DeviceBuffer<std::byte> data_;
};

/// What the passes through one layer read. Spans are empty where the family has no such parameter.
struct LayerWeights {
    DeviceSpan<const float> input_norm, post_norm, q_norm, k_norm;
    DeviceSpan<const float> qkv_bias, o_bias, gate_up_bias, down_bias;
    kernels::PackedWeight qkv, o, gate_up, down;                      ///< y = x W^T
    kernels::PackedWeight qkv_back, o_back, gate_up_back, down_back;  ///< dx = dy W; training only
};

/// Which passes the packed copies must serve.
enum class Passes : std::uint8_t { forward, forward_and_backward };

/// Masters in one flat buffer in table order, each parameter aligned to 64 bytes. Not safe for use
/// by several threads.
class Weights {
  public:
    /// Allocates; contents unspecified until every parameter was written and pack() called.
    Weights(kernels::Device& device, const ModelConfig& config, Passes passes);

    [[nodiscard]] const ModelConfig& config() const { return config_; }
    [[nodiscard]] const DecoderParameters& parameters() const { return parameters_; }
    [[nodiscard]] const LayerContractions& contractions() const { return contractions_; }
    [[nodiscard]] const ParameterTable& table() const { return parameters_.table; }

    /// The whole parameter: [rows, cols].
    [[nodiscard]] kernels::Matrix master(ParameterId id);
    [[nodiscard]] kernels::ConstMatrix master(ParameterId id) const;
    [[nodiscard]] DeviceSpan<float> master_span(ParameterId id);

    /// Makes the packed copies from the masters: after loading and after every update.
    void pack(Compute& compute);

    [[nodiscard]] const LayerWeights& layer(std::int64_t index) const {
        return layers_[static_cast<std::size_t>(index)].view;
    }
    [[nodiscard]] DeviceSpan<const float> final_norm() const;
    [[nodiscard]] kernels::ConstMatrix embedding() const { return master(parameters_.embedding); }
    [[nodiscard]] kernels::ConstMatrix head() const { return master(parameters_.head); }
    [[nodiscard]] kernels::PackedWeight packed_head() const { return head_.view(); }
    /// Rotation tables [max_position, head_dim / 2].
    [[nodiscard]] DeviceSpan<const float> cosine() const { return cosine_.span(); }
    [[nodiscard]] DeviceSpan<const float> sine() const { return sine_.span(); }

    /// Copies the masters of `other`, which has the same configuration (a reference that follows
    /// its policy).
    void copy_from(const Weights& other, Compute& compute);

    /// Sum modulo 2^128 of the digests of all parameters (N8).
    [[nodiscard]] UInt128 digest(Compute& compute) const;
    /// The same of one parameter.
    [[nodiscard]] UInt128 digest(ParameterId id, Compute& compute) const;

    [[nodiscard]] std::int64_t bytes() const { return masters_.span().size_bytes(); }

  private:
    struct Layer {
        Packed qkv, o, gate_up, down, qkv_back, o_back, gate_up_back, down_back;
        kernels::DeviceBuffer<float> qkv_bias, gate_up_bias;  // stacked copies
        LayerWeights view;
    };
    [[nodiscard]] DeviceSpan<const float> vector(ParameterId id) const;

    ModelConfig config_;
    Passes passes_;
    DecoderParameters parameters_;
    LayerContractions contractions_;
    std::vector<std::int64_t> offsets_;  // of each parameter in masters_, elements
    kernels::DeviceBuffer<float> masters_;
    std::vector<Layer> layers_;
    Packed head_;
    kernels::DeviceBuffer<float> cosine_, sine_;
};

/// Column ranges of a parameter's rows that are units of digests and gradient norms: its leaves
/// where columns are split, else the whole row (a split vector: the leaves' pieces).
[[nodiscard]] std::vector<Range> digest_pieces(const Parameter& parameter, int leaves);

}  // namespace rankwise::model
