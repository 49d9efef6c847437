// Sums of gradients over the data axis: chunk gradients travel to the owners of their rows, which
// add them in ascending order of chunks (NUMERICS N3, N10).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "parallel/communicator.hpp"
#include "parallel/shard_map.hpp"
#include "src/base/parameter_table.hpp"
#include "src/base/trajectory.hpp"
#include "src/sums/tools.hpp"

namespace rankwise::sums {

/// Where gradients of an embedding's rows come from: each is a sum of its own.
enum class RowSource : std::uint8_t {
    input,       ///< the tokens that the decoder reads
    prediction,  ///< those that a module reads which predicts further
};

/// Totals of one minibatch for the rows that this rank owns, fp32, each starting from zero. A wave
/// is one chunk a rank, in the order of ranks; the ranks that have none are known to all and
/// skipped, never added as zeros.
class GradientOwners {
  public:
    /// @param shapes  of this rank's parts of the parameters, in the table's order
    GradientOwners(Tools tools, parallel::Communicator& data, std::span<const Shape> shapes,
                   const parallel::ShardMap& owners);

    [[nodiscard]] const parallel::ShardMap& owners() const { return owners_; }
    [[nodiscard]] parallel::Communicator& data() const { return data_; }
    /// The flat shard of this rank (ShardMap's order).
    [[nodiscard]] DeviceSpan<float> totals() const { return totals_.span(); }
    [[nodiscard]] kernels::Matrix total(const parallel::ShardPiece& piece) const;
    /// With one data rank: the whole total of a parameter (empty if this rank has no part of it),
    /// to which matmuls add their finished sums themselves.
    [[nodiscard]] kernels::Matrix whole(ParameterId id) const;

    /// A planted fault for tests: contributions are added in an order that depends on the rank, as
    /// they might arrive, which breaks N3.
    void break_order(bool on) { break_order_ = on; }

    /// Before a minibatch: every total is zero.
    void reset();

    /// Gradients of this rank's chunk, [rows, cols] of each parameter.
    using Lookup = std::function<kernels::ConstMatrix(ParameterId)>;
    /// Collective over the data axis, more than one rank. `contributes[r]`: rank r has a chunk in
    /// this wave; `own` is not called on a rank that has none.
    void exchange(std::string_view label, std::span<const ParameterId> parameters,
                  const std::vector<bool>& contributes, const Lookup& own);
    /// The same, under way while this rank goes on: added when the next exchange begins, or by
    /// finish_exchange(). What `own` gave is free on return.
    void start_exchange(std::string_view label, std::span<const ParameterId> parameters,
                        const std::vector<bool>& contributes, const Lookup& own);
    void finish_exchange();

    /// Gradients of a chunk of this rank's, or of another's whose tokens its experts have computed.
    using ServedLookup = std::function<kernels::ConstMatrix(ParameterId, int chunk)>;
    /// Collective. Of parameters that some data ranks hold (ShardMap): each holder has gradients of
    /// the chunks of `served` consecutive data ranks, itself among them, of which `own` is asked
    /// for those that contribute. Added in ascending order of all chunks.
    void exchange_served(std::string_view label, std::span<const ParameterId> parameters,
                         const std::vector<bool>& contributes, int served, const ServedLookup& own);

    /// Collective. Rows of one parameter, named by `ids` (ascending), that this rank's chunk
    /// contributes to; summed apart from the parameter's total, and by their source, until
    /// finish_rows() (a tied embedding has two gradients).
    void exchange_rows(std::string_view label, ParameterId parameter, std::span<const TokenId> ids,
                       kernels::ConstMatrix rows, const std::vector<bool>& contributes,
                       RowSource source = RowSource::input);
    /// After the last chunk: each row's sum is added to its total once.
    void finish_rows(ParameterId parameter, RowSource source = RowSource::input);

    /// Rows of exchange_rows() are of a parameter that another pipeline rank holds: who owns them
    /// there.
    void rows_belong_to(parallel::ShardMap owners) { row_owners_ = std::move(owners); }
    /// Instead of finish_rows(), collective over two ranks of the pipeline axis: the sums of rows
    /// travel to the rank that has the parameter, which adds them to its totals.
    void send_rows(parallel::Communicator& pipeline, int to, ParameterId parameter,
                   RowSource source = RowSource::input);
    void receive_rows(parallel::Communicator& pipeline, int from, ParameterId parameter);

  private:
    /// Gradients of a wave on their way to this rank.
    struct Flight {
        std::vector<ParameterId> parameters;
        /// Of each chunk that contributes, ascending: the rows that this rank owns.
        std::vector<DeviceSpan<const float>> chunks;
        parallel::Request arrival;
    };
    using Take = std::function<DeviceSpan<float>(kernels::DeviceBuffer<float>&, std::int64_t)>;
    /// Rows of exchange_rows(), in the order in which their ids first came: only ids that occur
    /// take memory.
    struct RowSums {
        std::unordered_map<TokenId, std::int64_t> slots;
        std::vector<TokenId> ids;
        kernels::DeviceBuffer<float> rows;
        std::int64_t capacity = 0;

        void clear();
    };
    Flight send(std::string_view label, std::span<const ParameterId> parameters,
                const std::vector<bool>& contributes, int served, const ServedLookup& own,
                const Take& take);
    [[nodiscard]] Take take_scratch() const;
    void add(Flight& flight);
    void add_row(RowSums& sums, ParameterId parameter, TokenId id, kernels::ConstMatrix row);
    [[nodiscard]] RowSums& rows_from(RowSource source) {
        return row_sums_[static_cast<std::size_t>(source)];
    }
    void add_to_totals(ParameterId parameter, std::span<const TokenId> ids,
                       DeviceSpan<const float> rows);
    [[nodiscard]] const parallel::ShardMap& row_owners() const {
        return row_owners_ ? *row_owners_ : owners_;
    }

    Tools tools_;
    parallel::Communicator& data_;
    std::vector<Shape> shapes_;
    const parallel::ShardMap& owners_;
    std::optional<parallel::ShardMap> row_owners_;
    kernels::DeviceBuffer<float> totals_;
    kernels::DeviceBuffer<float> sent_, received_;  // of start_exchange()
    std::optional<Flight> flight_;
    std::array<RowSums, 2> row_sums_;  // by source
    bool break_order_ = false;
};

/// Collective over the data axis. Every rank that may own rows of a parameter (ShardMap) holds the
/// whole of it, up to date in the rows that it owns; returns with all rows up to date.
void all_gather_rows(Tools tools, parallel::Communicator& data, std::string_view label,
                     const parallel::ShardMap& owners, std::span<const ParameterId> parameters,
                     const std::function<kernels::Matrix(ParameterId)>& whole);
/// The same of parameters that ranks self mod `stride`, … hold between them, which differ for
/// others.
void all_gather_rows_among(Tools tools, parallel::Communicator& data, std::string_view label,
                           const parallel::ShardMap& owners, int stride,
                           std::span<const ParameterId> parameters,
                           const std::function<kernels::Matrix(ParameterId)>& whole);

}  // namespace rankwise::sums
