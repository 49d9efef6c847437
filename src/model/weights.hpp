// The weights of one model on this rank: fp32 masters, and the packed copies that matmuls read, of
// the type that the model computes in (bf16: rounded to nearest even).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/model/gathered.hpp"
#include "src/model/held_parts.hpp"
#include "src/model/residency.hpp"
#include "src/model/vocabulary_split.hpp"
#include "src/sums/tensor_parallel.hpp"

namespace rankwise::model {

/// How a rank's sums and those of the other tensor ranks make up totals.
struct TensorSums {
    sums::RankTree attention;     ///< over the heads: o_proj forward, q k v (q_b) backward
    sums::RankTree intermediate;  ///< over the MLP: down_proj forward, gate and up backward
    sums::RankTree shared;        ///< over the shared experts, likewise
    sums::RankTree vocabulary;    ///< the head's input gradient
    sums::RankTree shared_kv;     ///< the ranks that hold the same KV heads: dk, dv
    sums::RankTree k_norm;        ///< over the KV heads
};

/// The ranks that routed experts are shared out over (N4): all tensor ranks of consecutive data
/// ranks, or consecutive ones of a tensor axis; null: each rank has them all.
struct ExpertAxis {
    parallel::Communicator* axis = nullptr;
    int data_rank = 0;  ///< of this rank
    /// Rows that a rank computes at a time; 0: as many as the busiest one brings (physical).
    std::int64_t rows = 0;
};

/// Ranks that share a model between them; null: along that axis this rank holds all of it. They
/// outlive the weights, whose passes are collective over them.
struct ModelAxes {
    parallel::Communicator* tensor = nullptr;  ///< each holds a part of every layer (N2)
    /// Each holds rows of every parameter (ZeRO-3). The data axis, with nobody else's calls on it
    /// (parallel::Mesh::weights).
    parallel::Communicator* shards = nullptr;
    PipelineAxis pipeline = {};  ///< each has some of the layers
    ExpertAxis experts = {};     ///< each has some of the routed experts of every layer
};

/// Masters in one flat buffer in table order: of each parameter the part of this rank of the tensor
/// axis, and of that its rows where they are shared out (ZeRO-3). Not safe for use by several
/// threads.
class Weights {
  public:
    /// Allocates; contents unspecified until every parameter was written and pack() called.
    /// @param residence  weights that do not lie on the device are there for an OnDevice's life
    Weights(kernels::Device& device, const ModelConfig& config, Passes passes,
            const ModelAxes& axes = {}, Residence residence = {});

    Weights(const Weights&) = delete;  // packed copies and what is gathered refer to it
    Weights& operator=(const Weights&) = delete;

    [[nodiscard]] const ModelConfig& config() const { return config_; }
    [[nodiscard]] const DecoderParameters& parameters() const { return parameters_; }
    [[nodiscard]] const LayerContractions& contractions() const { return contractions_; }
    [[nodiscard]] const ParameterTable& table() const { return parameters_.table; }

    /// This rank's part of a decoder and of a parameter, as the passes see it, and its shape.
    [[nodiscard]] const Part& part() const { return part_; }
    [[nodiscard]] const HeldParts& held() const { return held_; }
    [[nodiscard]] const Box& part_box(ParameterId id) const { return held_.boxes[index(id)]; }
    [[nodiscard]] Shape shape(ParameterId id) const { return held_.shapes[index(id)]; }
    [[nodiscard]] std::span<const Shape> shapes() const { return held_.shapes; }
    /// What this rank holds of a parameter between passes: of its part all rows, or its own.
    [[nodiscard]] const Box& box(ParameterId id) const { return boxes_[index(id)]; }
    /// The same, counted from the part's first row.
    [[nodiscard]] Range held_rows(ParameterId id) const {
        const Range rows = box(id).rows;
        const std::int64_t first = part_box(id).rows.begin;
        return {rows.begin - first, rows.end - first};
    }
    /// By parameter: whether it is kept as it is, without gradient and optimizer.
    [[nodiscard]] const std::vector<bool>& frozen() const { return frozen_; }

    /// From now on the module that predicts one token further is trained, or no more: its packed
    /// copies are made, or given back. Of a model that has one, on the device. Collective over the
    /// ranks that share the model.
    void use_mtp(Compute& compute, bool on);
    [[nodiscard]] bool uses_mtp() const { return uses_mtp_; }
    /// The number of its layer, behind those of the decoder.
    [[nodiscard]] std::int64_t mtp_layer() const { return config_.layers; }
    [[nodiscard]] const MtpIds& mtp_ids() const { return parameters_.mtp.front(); }
    /// On the last pipeline rank; where rows are shared out once its layer was gathered.
    [[nodiscard]] const MtpWeights& mtp() const {
        return sharded() ? gathered_->mtp() : mtp_->view();
    }
    /// The matrix that it looks tokens up in: the embedding, or its copy where another pipeline
    /// rank has that (and what is to be gathered for it).
    [[nodiscard]] ParameterId mtp_table() const {
        return pipeline_part_.has_embedding ? parameters_.embedding : mtp_ids().embedding_copy;
    }
    [[nodiscard]] kernels::ConstMatrix mtp_embedding() const { return table(mtp_table()); }
    void gather_mtp_embedding(Compute& compute) const {
        if (sharded()) gathered_->embedding(compute, mtp_table());
    }
    /// The module's copies of embedding and head become what they are copies of.
    void renew_mtp_copies(Compute& compute);
    /// Whether what this rank holds of a parameter counts here (digests, norms, files): what
    /// several ranks hold counts on the lowest.
    [[nodiscard]] bool counts(ParameterId id) const { return held_.counts[index(id)]; }
    /// Columns of the part that are units of digests and gradient norms: its leaves where columns
    /// are split, else the whole row (a split vector: the leaves' pieces).
    [[nodiscard]] std::vector<Range> digest_pieces(ParameterId id) const;

    /// Whether the model is split over tensor ranks.
    [[nodiscard]] bool split() const { return part_.place.degree > 1; }
    /// The tensor axis; only of a model that is split.
    [[nodiscard]] parallel::Communicator& tensor() const { return *axes_.tensor; }
    /// Which layers this rank has; and the pipeline axis, only of a model that is dealt over it.
    [[nodiscard]] const PipelinePart& pipeline_part() const { return pipeline_part_; }
    [[nodiscard]] parallel::Communicator& pipeline() const { return *axes_.pipeline.axis; }
    /// Calls `each` with every axis that the model is spread over: for sums of integers and maxima
    /// (over the data axis they have been taken before).
    template <class Each>
    void for_model_axes(const Each& each) const {
        if (split()) each(tensor());
        if (pipeline_part_.split()) each(pipeline());
    }
    [[nodiscard]] const TensorSums& tensor_sums() const { return tensor_sums_; }
    [[nodiscard]] const VocabularySplit& vocabulary() const { return vocabulary_; }

    /// Whether the ranks of a chunk are in several groups of the expert axis, each with all
    /// experts.
    [[nodiscard]] bool splits_chunks_over_experts() const {
        return shares_experts() && part_.place.experts < part_.place.degree;
    }
    /// Whether routed experts are shared out over ranks; the axis; and how many data ranks it
    /// spans, which then go together through every layer with experts.
    [[nodiscard]] bool shares_experts() const { return part_.place.experts > 1; }
    [[nodiscard]] const ExpertAxis& experts() const { return axes_.experts; }
    [[nodiscard]] int expert_data_ranks() const {
        return std::max(1, part_.place.experts / part_.place.degree);
    }
    /// Whether data ranks hold parts of one model: what is collective over the ranks that share it
    /// is so over them.
    [[nodiscard]] bool shared_by_data() const { return sharded() || expert_data_ranks() > 1; }
    /// By parameter: the data ranks that hold this rank's part of it.
    [[nodiscard]] const std::vector<parallel::DataRanks>& data_ranks() const {
        return held_.data_ranks;
    }
    /// By parameter: whether this rank keeps no moments of it: it is frozen, or others hold it.
    [[nodiscard]] std::vector<bool> without_moments() const;

    /// Whether rows are shared out over the data ranks.
    [[nodiscard]] bool sharded() const { return axes_.shards != nullptr; }
    /// The data axis; only of weights that are sharded.
    [[nodiscard]] parallel::Communicator& shards() const { return *axes_.shards; }

    /// What this rank holds of a parameter (box()): [rows, cols].
    [[nodiscard]] kernels::Matrix master(ParameterId id);
    [[nodiscard]] kernels::ConstMatrix master(ParameterId id) const;
    [[nodiscard]] DeviceSpan<float> master_span(ParameterId id);

    /// The masters have changed (after loading, after every update): packed copies are made anew,
    /// or gathered anew when they are asked for.
    void pack(Compute& compute);
    /// The same in parts, for whoever has other work between them: the decoder's layers, in any
    /// order, and then all else. A number that is no layer of the decoder, or of another rank's, is
    /// no work.
    void pack_layer(Compute& compute, std::int64_t layer);
    void pack_rest(Compute& compute);

    // A pass says what it is about to read; where rows are shared out they are gathered then, else
    // nothing is to be done. Collective over the shards (Gathered).
    void gather_layer(Compute& compute, std::int64_t layer, Copies copies,
                      std::optional<std::int64_t> next) const {
        if (sharded()) gathered_->layer(compute, layer, copies, next);
    }
    void gather_embedding(Compute& compute) const {
        if (sharded()) gathered_->embedding(compute, parameters_.embedding);
    }
    void gather_head(Compute& compute, Copies copies) const {
        if (sharded()) gathered_->head(compute, copies);
    }
    /// All that generation reads, in scratch memory that the caller gives back after drop_all().
    void hold_all(Compute& compute) const {
        if (sharded()) gathered_->hold_all(compute);
    }
    void drop_all() const {
        if (sharded()) gathered_->drop();
    }

    // What passes read, once gathered.
    [[nodiscard]] const LayerWeights& layer(std::int64_t index) const {
        if (sharded()) return gathered_->view(index);
        if (index >= config_.layers) return mtp_->layer();
        return layers_[static_cast<std::size_t>(pipeline_part_.local_layer(index))].view();
    }
    [[nodiscard]] DeviceSpan<const float> final_norm() const;
    [[nodiscard]] kernels::ConstMatrix embedding() const { return table(parameters_.embedding); }
    [[nodiscard]] kernels::ConstMatrix head() const { return table(parameters_.head); }
    [[nodiscard]] kernels::PackedWeight packed_head() const {
        return sharded() ? gathered_->packed_head() : head_.view();
    }
    /// Rotation tables [max_position, rope_dim / 2].
    [[nodiscard]] DeviceSpan<const float> cosine() const { return cosine_.span(); }
    [[nodiscard]] DeviceSpan<const float> sine() const { return sine_.span(); }

    /// Copies the masters of `other`, which has the same configuration and place (a reference that
    /// follows its policy).
    void copy_from(const Weights& other, Compute& compute);

    /// Digests of all parameters, in table order (N8), and their sum modulo 2^128. Collective over
    /// the ranks that share the model.
    [[nodiscard]] std::vector<UInt128> digests(Compute& compute) const;
    [[nodiscard]] UInt128 digest(Compute& compute) const;

    /// Bytes of the masters, wherever they lie; and of host memory that is held for them.
    [[nodiscard]] std::int64_t bytes() const { return size_ * size_of(DType::f32); }
    /// Whether spans of them hold for the weights' life.
    [[nodiscard]] bool stays_on_device() const { return off_ == nullptr; }
    [[nodiscard]] std::int64_t host_bytes() const { return off_ && off_->on_host() ? bytes() : 0; }

  private:
    friend class OnDevice;
    void place_masters();
    /// Masters and copies of all layers, unless rows are shared out, in memory of `take`; without
    /// contents.
    void make_room(const Take& take);
    void pack_layers(Compute& compute);
    /// What is in no layer of the decoder.
    void pack_others(Compute& compute);
    void pack_mtp(Compute& compute);
    [[nodiscard]] ParameterRows whole_rows(kernels::ConstMatrix& held) const;
    [[nodiscard]] std::unique_ptr<Gathered> make_gathered() const;
    void bring(Compute& compute);
    void leave();
    [[nodiscard]] static std::size_t index(ParameterId id) { return static_cast<std::size_t>(id); }
    [[nodiscard]] kernels::ConstMatrix table(ParameterId id) const {
        return sharded() ? gathered_->table(id) : master(id);
    }

    ModelConfig config_;
    Passes passes_;
    ModelAxes axes_;
    Part part_;
    PipelinePart pipeline_part_;
    DecoderParameters parameters_;
    HeldParts held_;
    std::vector<Box> boxes_;
    std::vector<bool> frozen_;
    bool uses_mtp_ = false;
    TensorSums tensor_sums_;
    VocabularySplit vocabulary_;
    LayerContractions contractions_;
    std::vector<std::int64_t> offsets_;  // of each parameter's rows in masters_, elements
    std::int64_t size_ = 0;              // of masters_, elements
    kernels::Device* device_;
    kernels::DeviceBuffer<std::byte> memory_;  // of the following, on the device
    DeviceSpan<float> masters_;
    std::unique_ptr<LayerSpecs> specs_;  // at fixed addresses: copies refer to them
    std::unique_ptr<kernels::PackSpec> head_spec_;
    std::vector<PackedLayer> layers_;  // that this rank has, ascending
    PackedCopy head_;
    std::unique_ptr<parallel::ShardMap> owners_;
    std::unique_ptr<Gathered> gathered_;  // in their place, where rows are shared out
    std::vector<kernels::DeviceBuffer<std::byte>> mtp_memory_;
    std::unique_ptr<MtpCopies> mtp_;  // of a module that is trained
    kernels::DeviceBuffer<float> cosine_, sine_;
    std::unique_ptr<OffDevice> off_;  // of weights that do not lie on the device
};

/// Weights are on the device while it lives: those that lie elsewhere in scratch memory, where what
/// is written to them is kept when pack() is called. Of those that lie there nothing is done.
class OnDevice {
  public:
    OnDevice(Compute& compute, Weights& weights);
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;
    ~OnDevice();

  private:
    Weights& weights_;
    std::optional<kernels::Arena::Scope> scope_;
};

}  // namespace rankwise::model
