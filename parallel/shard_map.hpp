// Which data rank owns which rows of which parameter (ZeRO), and where they lie in its flat shard.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "src/base/box.hpp"
#include "src/base/parameter_table.hpp"

namespace rankwise::parallel {

/// Rows of one parameter that one rank owns, and where they begin in its flat shard (in elements,
/// rows contiguous).
struct ShardPiece {
    ParameterId parameter = 0;
    int rank = 0;
    Range rows;
    std::int64_t offset = 0;
    std::int64_t size = 0;  ///< elements
    /// Where it lies in the whole parameter, of which the map's shape is the part at `part`.
    [[nodiscard]] Box box_in(const Box& part) const {
        return {{part.rows.begin + rows.begin, part.rows.begin + rows.end}, part.cols};
    }
    friend bool operator==(const ShardPiece&, const ShardPiece&) = default;
};

/// Data ranks that may own rows of a parameter: first, first + stride, …. Experts that are shared
/// out over data ranks have some of them only.
struct DataRanks {
    int first = 0;
    int stride = 1;
    [[nodiscard]] bool contains(int rank) const { return rank % stride == first; }
    friend bool operator==(const DataRanks&, const DataRanks&) = default;
};

/// Every row of every parameter belongs to exactly one rank (zero_rows of the parameter table).
/// Flat shards hold the pieces in parameter order. Parameters whose rows do not divide evenly take
/// turns in which ranks get more, so that many vectors spread over all ranks.
class ShardMap {
  public:
    /// Over the global shapes of a table, for `ranks` data ranks; ranks = 1 is the map without
    /// sharding.
    ShardMap(const ParameterTable& table, int ranks);
    /// Over other shapes in the table's order: a tensor rank's parts of them.
    /// @param left_out  by parameter: those that no rank holds anything of; the others lie as if
    /// these were there. Empty: none
    /// @param among  by parameter: its data ranks. Empty: all
    ShardMap(std::span<const Shape> shapes, int ranks, const std::vector<bool>& left_out = {},
             std::span<const DataRanks> among = {});

    [[nodiscard]] int ranks() const { return static_cast<int>(shards_.size()); }
    [[nodiscard]] std::int64_t parameters() const {
        return static_cast<std::int64_t>(cols_.size());
    }

    /// What `rank` owns, without empty pieces, in parameter order.
    [[nodiscard]] std::span<const ShardPiece> pieces(int rank) const;
    /// Elements of the flat shard of `rank`.
    [[nodiscard]] std::int64_t size(int rank) const;
    /// The rank's piece of a parameter, if it has one.
    [[nodiscard]] std::optional<ShardPiece> piece(int rank, ParameterId parameter) const;
    /// All pieces of a parameter, rows ascending; together they are the whole parameter.
    [[nodiscard]] std::span<const ShardPiece> owners(ParameterId parameter) const;
    /// The piece that holds a row. @throws InternalError if there is no such row.
    [[nodiscard]] const ShardPiece& owner(ParameterId parameter, std::int64_t row) const;

    /// An element of a flat shard, named in its parameter.
    struct Place {
        ParameterId parameter = 0;
        std::int64_t row = 0;
        std::int64_t col = 0;
        friend bool operator==(const Place&, const Place&) = default;
    };
    /// @throws InternalError if offset is outside of the shard.
    [[nodiscard]] Place place(int rank, std::int64_t offset) const;
    /// Inverse: rank and offset in its flat shard.
    struct Address {
        int rank = 0;
        std::int64_t offset = 0;
        friend bool operator==(const Address&, const Address&) = default;
    };
    [[nodiscard]] Address address(const Place& place) const;

  private:
    std::vector<std::vector<ShardPiece>> shards_;  // by rank
    std::vector<std::int64_t> sizes_;              // by rank
    std::vector<std::vector<ShardPiece>> owners_;  // by parameter
    std::vector<std::int64_t> cols_;               // by parameter
};

}  // namespace rankwise::parallel
