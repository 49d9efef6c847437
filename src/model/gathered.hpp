// ZeRO-3 (Rajbhandari et al. 2020): parameters whose rows are shared out over the data ranks are
// brought together for the passes that read them, a layer at a time, the next on its way meanwhile.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "parallel/communicator.hpp"
#include "parallel/shard_map.hpp"
#include "src/model/mtp_copies.hpp"
#include "src/model/pipeline_part.hpp"

namespace rankwise::model {

/// Which copies of a layer, or of the head, a pass reads.
enum class Copies : std::uint8_t { forward, backward };

/// What is gathered of one model. Two layers are held at most, the embedding or the head (one
/// matrix where they are tied), and the final norm. Everything is collective over the data ranks:
/// all ask for the same in the same order, also those that have nothing to compute. Not safe for
/// use by several threads.
class Gathered {
  public:
    /// @param data_ranks  by parameter: those that read it (experts that are shared out over data
    /// ranks: some of them)
    /// @param masters  this rank's rows in the order of `owners`; with the other arguments it
    /// outlives this
    /// @param mtp  the module behind the last layer is gathered too, as a layer after it
    Gathered(kernels::Device& device, const DecoderParameters& parameters, const PipelinePart& part,
             const parallel::ShardMap& owners, std::span<const parallel::DataRanks> data_ranks,
             std::span<const Shape> shapes, const LayerSpecs& specs, const kernels::PackSpec& head,
             Passes passes, parallel::Communicator& data, DeviceSpan<const float> masters,
             bool mtp = false);
    ~Gathered();

    /// The masters have changed: nothing that was gathered counts.
    void invalidate();

    /// `layer` is there with these copies on return, and the gather of `next` is under way. What
    /// was asked for before last may be gone.
    void layer(Compute& compute, std::int64_t layer, Copies copies,
               std::optional<std::int64_t> next);
    [[nodiscard]] const LayerWeights& view(std::int64_t layer) const;
    [[nodiscard]] const MtpWeights& mtp() const { return mtp_->view(); }
    /// The module is not gathered any more: its copies are given back.
    void drop_mtp();

    /// The embedding is there on return, or the module's copy of it (and an untied head's rows are
    /// not).
    void embedding(Compute& compute, ParameterId id);
    /// The final norm and the head are there: packed for the forward pass, its rows for the
    /// backward pass (then an untied embedding is not).
    void head(Compute& compute, Copies copies);
    /// The matrix asked for last by embedding() or head().
    [[nodiscard]] kernels::ConstMatrix table(ParameterId id) const;
    [[nodiscard]] DeviceSpan<const float> final_norm() const { return final_norm_.span(); }
    [[nodiscard]] kernels::PackedWeight packed_head() const { return head_.view(); }

    /// All layers of this rank with copies for the forward pass, the head and the embedding, in
    /// scratch memory, until drop(): for generation. layer() has nothing to do meanwhile.
    void hold_all(Compute& compute);
    void drop() { resident_.clear(); }
    [[nodiscard]] bool holds_all() const { return !resident_.empty(); }

  private:
    /// Parameters that travel together: consecutive in the table, so that each rank's rows of them
    /// are one piece of its shard.
    struct Group {
        Group(const parallel::ShardMap& owners, std::span<const parallel::DataRanks> data_ranks,
              Range parameters, int rank);
        Range ids;
        Range own;                         ///< in this rank's shard
        std::vector<std::int64_t> counts;  ///< by rank that sends
        std::int64_t size = 0;
        std::vector<std::int64_t> sent;  ///< by rank that receives; empty: all receive all
    };
    struct Slot {
        std::int64_t layer = -1;
        bool forward = false, backward = false;  ///< copies that are made
        std::int64_t used = 0;                   ///< when it was asked for
        parallel::Request arrival;
        kernels::DeviceBuffer<float> sent;  ///< where ranks receive different rows
        kernels::DeviceBuffer<float> rows;  ///< of all ranks, in rank order
        std::vector<std::vector<kernels::ConstMatrix>> pieces;  ///< of each parameter of the group
        kernels::DeviceBuffer<std::byte> memory;                ///< of the copies
        /// A dense layer's, and those of one with experts, in the same memory.
        std::array<std::unique_ptr<PackedLayer>, 2> packed;
    };

    /// Bytes of a layer's copies.
    [[nodiscard]] std::int64_t packed_bytes(bool experts, Passes passes) const;
    [[nodiscard]] Take take_from_device(std::vector<kernels::DeviceBuffer<std::byte>>& memory);
    [[nodiscard]] bool has_experts(std::int64_t layer) const {
        return parameters_.layer(layer).router >= 0;
    }
    [[nodiscard]] bool is_module(std::int64_t layer) const {
        return layer >= std::ssize(parameters_.layers);
    }
    [[nodiscard]] PackedLayer& packed(Slot& slot) const {
        return *slot.packed[has_experts(slot.layer) ? 1 : 0];
    }
    [[nodiscard]] bool reads(int rank, std::int64_t id) const {
        return data_ranks_[static_cast<std::size_t>(id)].contains(rank);
    }
    [[nodiscard]] Slot* find(std::int64_t layer);
    Slot& start(Compute& compute, std::int64_t layer);
    [[nodiscard]] DeviceSpan<float> fill(Compute& compute, Slot& slot, const Group& group);
    Slot& arrived(Compute& compute, std::int64_t layer);
    [[nodiscard]] ParameterRows rows_of(const Slot& slot) const;
    void gather(Compute& compute, ParameterId id, DeviceSpan<float> to);

    kernels::Device& device_;
    const DecoderParameters& parameters_;
    const PipelinePart& part_;
    const parallel::ShardMap& owners_;
    std::span<const parallel::DataRanks> data_ranks_;
    std::span<const Shape> shapes_;
    const LayerSpecs& specs_;
    parallel::Communicator& data_;
    DeviceSpan<const float> masters_;
    std::vector<Group> layers_;
    std::array<Slot, 2> slots_;
    std::int64_t clock_ = 0;
    kernels::DeviceBuffer<float> table_;
    ParameterId table_id_ = -1;  ///< which matrix it is; -1: none
    kernels::DeviceBuffer<float> final_norm_;
    bool final_norm_there_ = false;
    std::vector<kernels::DeviceBuffer<std::byte>> head_memory_;
    PackedCopy head_;
    bool head_packed_ = false;
    std::vector<PackedLayer> resident_;  // that this rank has, ascending
    std::vector<kernels::DeviceBuffer<std::byte>> mtp_memory_;
    std::unique_ptr<MtpCopies> mtp_;
};

}  // namespace rankwise::model
