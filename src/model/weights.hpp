// The weights of one model on this rank: fp32 masters, and the packed copies that matmuls read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/model/context.hpp"
#include "src/model/expert_copies.hpp"
#include "src/model/latent_copies.hpp"
#include "src/model/pipeline_part.hpp"
#include "src/model/vocabulary_split.hpp"
#include "src/sums/tensor_parallel.hpp"

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
    const LatentWeights* latent = nullptr;                            ///< in place of qkv
    const ExpertWeights* experts = nullptr;                           ///< in place of gate_up, down
};

/// How a rank's sums and those of the other tensor ranks make up totals.
struct TensorSums {
    sums::RankTree attention;     ///< over the heads: o_proj forward, q k v backward
    sums::RankTree intermediate;  ///< over the MLP: down_proj forward, gate and up backward
    sums::RankTree vocabulary;    ///< the head's input gradient
    sums::RankTree shared_kv;     ///< the ranks that hold the same KV heads: dk, dv
    sums::RankTree k_norm;        ///< over the KV heads
};

/// Masters in one flat buffer in table order, each parameter aligned to 64 bytes: of each parameter
/// the part that this rank of the tensor and pipeline axes holds; nothing of other ranks' layers.
/// Not safe for use by several threads.
class Weights {
  public:
    /// Allocates; contents unspecified until every parameter was written and pack() called.
    /// @param tensor  ranks that split the model; null: this rank holds all of it. Outlives the
    /// weights. Their passes are collective over it.
    /// @param pipeline  ranks that have its layers; by default this one has all
    Weights(kernels::Device& device, const ModelConfig& config, Passes passes,
            parallel::Communicator* tensor = nullptr, PipelineAxis pipeline = {});

    [[nodiscard]] const ModelConfig& config() const { return config_; }
    [[nodiscard]] const DecoderParameters& parameters() const { return parameters_; }
    [[nodiscard]] const LayerContractions& contractions() const { return contractions_; }
    [[nodiscard]] const ParameterTable& table() const { return parameters_.table; }

    /// This rank's part of a decoder, of a parameter, and the shape of that part.
    [[nodiscard]] const Part& part() const { return part_; }
    [[nodiscard]] const Box& box(ParameterId id) const { return boxes_[index(id)]; }
    [[nodiscard]] Shape shape(ParameterId id) const { return shapes_[index(id)]; }
    [[nodiscard]] std::span<const Shape> shapes() const { return shapes_; }
    /// By parameter: whether it is kept as it is, without gradient and optimizer.
    [[nodiscard]] const std::vector<bool>& frozen() const { return frozen_; }
    /// Whether what this rank holds of a parameter counts here (digests, norms, files): what
    /// several ranks hold counts on the lowest.
    [[nodiscard]] bool counts(ParameterId id) const { return counts_[index(id)]; }
    /// Columns of the part that are units of digests and gradient norms: its leaves where columns
    /// are split, else the whole row (a split vector: the leaves' pieces).
    [[nodiscard]] std::vector<Range> digest_pieces(ParameterId id) const;

    /// Whether the model is split over tensor ranks.
    [[nodiscard]] bool split() const { return part_.place.degree > 1; }
    /// The tensor axis; only of a model that is split.
    [[nodiscard]] parallel::Communicator& tensor() const { return *tensor_; }
    /// Which layers this rank has; and the pipeline axis, only of a model that is dealt over it.
    [[nodiscard]] const PipelinePart& pipeline_part() const { return pipeline_part_; }
    [[nodiscard]] parallel::Communicator& pipeline() const { return *pipeline_.axis; }
    /// Calls `each` with every axis that the model is spread over: for sums of integers and maxima.
    template <class Each>
    void for_model_axes(const Each& each) const {
        if (split()) each(tensor());
        if (pipeline_part_.split()) each(pipeline());
    }
    [[nodiscard]] const TensorSums& tensor_sums() const { return tensor_sums_; }
    [[nodiscard]] const VocabularySplit& vocabulary() const { return vocabulary_; }

    /// This rank's part of a parameter: [rows, cols].
    [[nodiscard]] kernels::Matrix master(ParameterId id);
    [[nodiscard]] kernels::ConstMatrix master(ParameterId id) const;
    [[nodiscard]] DeviceSpan<float> master_span(ParameterId id);

    /// Makes the packed copies from the masters: after loading and after every update.
    void pack(Compute& compute);

    [[nodiscard]] const LayerWeights& layer(std::int64_t index) const {
        return layers_[static_cast<std::size_t>(pipeline_part_.local_layer(index))].view;
    }
    [[nodiscard]] DeviceSpan<const float> final_norm() const;
    [[nodiscard]] kernels::ConstMatrix embedding() const { return master(parameters_.embedding); }
    [[nodiscard]] kernels::ConstMatrix head() const { return master(parameters_.head); }
    [[nodiscard]] kernels::PackedWeight packed_head() const { return head_.view(); }
    /// Rotation tables [max_position, rope_dim / 2].
    [[nodiscard]] DeviceSpan<const float> cosine() const { return cosine_.span(); }
    [[nodiscard]] DeviceSpan<const float> sine() const { return sine_.span(); }

    /// Copies the masters of `other`, which has the same configuration and place (a reference that
    /// follows its policy).
    void copy_from(const Weights& other, Compute& compute);

    /// Digests of all parameters, in table order (N8), and their sum modulo 2^128. Collective over
    /// the tensor and pipeline axes.
    [[nodiscard]] std::vector<UInt128> digests(Compute& compute) const;
    [[nodiscard]] UInt128 digest(Compute& compute) const;

    [[nodiscard]] std::int64_t bytes() const { return masters_.span().size_bytes(); }

  private:
    struct Layer {
        Packed qkv, o, gate_up, down, qkv_back, o_back, gate_up_back, down_back;
        kernels::DeviceBuffer<float> qkv_bias, gate_up_bias;  // stacked copies
        std::unique_ptr<LatentCopies> latent;
        std::unique_ptr<ExpertCopies> experts;
        std::vector<kernels::DeviceBuffer<std::byte>> memory;  // of the last two
        LayerWeights view;
    };
    [[nodiscard]] static std::size_t index(ParameterId id) { return static_cast<std::size_t>(id); }
    [[nodiscard]] DeviceSpan<const float> vector(ParameterId id) const;

    ModelConfig config_;
    Passes passes_;
    parallel::Communicator* tensor_;
    PipelineAxis pipeline_;
    Part part_;
    PipelinePart pipeline_part_;
    DecoderParameters parameters_;
    std::vector<Box> boxes_;
    std::vector<Shape> shapes_;
    std::vector<bool> counts_;
    std::vector<bool> frozen_;
    TensorSums tensor_sums_;
    VocabularySplit vocabulary_;
    LayerContractions contractions_;
    std::vector<std::int64_t> offsets_;  // of each parameter in masters_, elements
    kernels::DeviceBuffer<float> masters_;
    std::unique_ptr<LatentSpecs> latent_specs_;  // at fixed addresses: copies refer to them
    std::unique_ptr<ExpertSpecs> expert_specs_;
    std::vector<Layer> layers_;  // that this rank has, ascending
    Packed head_;
    kernels::DeviceBuffer<float> cosine_, sine_;
};

}  // namespace rankwise::model
