#include "parallel/shard_map.hpp"

#include <algorithm>

#include "parallel/index.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {

namespace {

std::vector<Shape> shapes_of(const ParameterTable& table) {
    std::vector<Shape> shapes;
    for (const Parameter& parameter : table.rows()) shapes.push_back(parameter.shape);
    return shapes;
}

}  // namespace

ShardMap::ShardMap(const ParameterTable& table, int ranks) : ShardMap(shapes_of(table), ranks) {}

ShardMap::ShardMap(std::span<const Shape> shapes, int ranks, const std::vector<bool>& left_out,
                   std::span<const DataRanks> among)
    : shards_(index(ranks)), sizes_(index(ranks)), owners_(shapes.size()) {
    std::int64_t turn = 0;
    for (std::size_t p = 0; p < shapes.size(); ++p) {
        const Shape shape = shapes[p];
        cols_.push_back(shape.cols);
        const DataRanks own = among.empty() ? DataRanks{} : among[p];
        const std::int64_t owners = ranks / own.stride;
        for (int rank = own.first; rank < ranks; rank += own.stride) {
            const Range rows = zero_rows(shape, owners, rank / own.stride, turn);
            const std::int64_t size = rows.size() * shape.cols;
            if (size == 0 || (!left_out.empty() && left_out[p])) continue;
            std::int64_t& end = sizes_[index(rank)];
            const ShardPiece piece{static_cast<ParameterId>(p), rank, rows, end, size};
            end += size;
            shards_[index(rank)].push_back(piece);
            owners_[p].push_back(piece);
        }
        if (shape.rows % owners != 0) ++turn;
    }
}

std::span<const ShardPiece> ShardMap::pieces(int rank) const {
    ensure(rank >= 0 && rank < ranks(), "shard of rank {}: there are {} ranks", rank, ranks());
    return shards_[index(rank)];
}

std::int64_t ShardMap::size(int rank) const {
    ensure(rank >= 0 && rank < ranks(), "shard of rank {}: there are {} ranks", rank, ranks());
    return sizes_[index(rank)];
}

std::span<const ShardPiece> ShardMap::owners(ParameterId parameter) const {
    ensure(parameter >= 0 && parameter < parameters(), "parameter {}: there are {}", parameter,
           parameters());
    return owners_[index(parameter)];
}

std::optional<ShardPiece> ShardMap::piece(int rank, ParameterId parameter) const {
    const auto all = owners(parameter);  // ascending
    const auto found = std::ranges::lower_bound(all, rank, {}, &ShardPiece::rank);
    if (found == all.end() || found->rank != rank) return std::nullopt;
    return *found;
}

const ShardPiece& ShardMap::owner(ParameterId parameter, std::int64_t row) const {
    const auto all = owners(parameter);
    const auto found = std::upper_bound(
        all.begin(), all.end(), row,
        [](std::int64_t r, const ShardPiece& piece) { return r < piece.rows.end; });
    ensure(row >= 0 && found != all.end(), "parameter {} has no row {}", parameter, row);
    return *found;
}

ShardMap::Place ShardMap::place(int rank, std::int64_t offset) const {
    const auto all = pieces(rank);
    ensure(offset >= 0 && offset < size(rank), "the shard of rank {} has {} elements, not {}", rank,
           size(rank), offset + 1);
    const auto found = std::upper_bound(
        all.begin(), all.end(), offset,
        [](std::int64_t o, const ShardPiece& piece) { return o < piece.offset + piece.size; });
    const std::int64_t inside = offset - found->offset;
    const std::int64_t cols = cols_[index(found->parameter)];
    return {found->parameter, found->rows.begin + inside / cols, inside % cols};
}

ShardMap::Address ShardMap::address(const Place& place) const {
    const ShardPiece& piece = owner(place.parameter, place.row);
    const std::int64_t cols = cols_[index(place.parameter)];
    ensure(place.col >= 0 && place.col < cols, "parameter {} has {} columns, no column {}",
           place.parameter, cols, place.col);
    return {piece.rank, piece.offset + (place.row - piece.rows.begin) * cols + place.col};
}

}  // namespace rankwise::parallel
