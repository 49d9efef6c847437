#include "parallel/shard_map.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "src/base/error.hpp"

namespace rankwise::parallel {
namespace {

ParameterTable small_model() {
    ParameterTable table;
    const auto add = [&](const std::string& name, Shape shape) {
        Parameter parameter;
        parameter.name = name;
        parameter.shape = shape;
        table.add(parameter);
    };
    add("embed", Shape::matrix(37, 8));
    for (int layer = 0; layer < 4; ++layer) {
        const std::string prefix = "layers." + std::to_string(layer);
        add(prefix + ".norm", Shape::of_vector(8));
        add(prefix + ".up", Shape::matrix(24, 8));
        add(prefix + ".down", Shape::matrix(8, 24));
        add(prefix + ".small", Shape::matrix(2, 5));
    }
    add("norm", Shape::of_vector(8));
    return table;
}

TEST(ShardMap, GivesEveryRowToExactlyOneRank) {
    const ParameterTable table = small_model();
    for (int ranks = 1; ranks <= 9; ++ranks) {
        const ShardMap map(table, ranks);
        ASSERT_EQ(map.ranks(), ranks);
        for (ParameterId p = 0; p < table.count(); ++p) {
            std::int64_t row = 0;
            for (const ShardPiece& piece : map.owners(p)) {
                EXPECT_EQ(piece.rows.begin, row);
                EXPECT_FALSE(piece.rows.empty());
                EXPECT_EQ(piece.size, piece.rows.size() * table[p].shape.cols);
                row = piece.rows.end;
            }
            EXPECT_EQ(row, table[p].shape.rows);
        }
    }
}

TEST(ShardMap, LaysPiecesOfARankOutInParameterOrderWithoutGaps) {
    const ParameterTable table = small_model();
    const ShardMap map(table, 3);
    std::int64_t elements = 0;
    for (int rank = 0; rank < 3; ++rank) {
        std::int64_t offset = 0;
        ParameterId last = -1;
        for (const ShardPiece& piece : map.pieces(rank)) {
            EXPECT_EQ(piece.rank, rank);
            EXPECT_EQ(piece.offset, offset);
            EXPECT_GT(piece.parameter, last);
            EXPECT_EQ(map.piece(rank, piece.parameter), piece);
            last = piece.parameter;
            offset += piece.size;
        }
        EXPECT_EQ(map.size(rank), offset);
        elements += offset;
    }
    EXPECT_EQ(elements, table.elements());
}

TEST(ShardMap, LeadsBothWaysBetweenElementsAndShards) {
    const ParameterTable table = small_model();
    const ShardMap map(table, 4);
    for (ParameterId p = 0; p < table.count(); ++p) {
        for (std::int64_t row = 0; row < table[p].shape.rows; ++row) {
            EXPECT_TRUE(map.owner(p, row).rows.contains(row));
            for (std::int64_t col = 0; col < table[p].shape.cols; ++col) {
                const ShardMap::Place place{p, row, col};
                const auto address = map.address(place);
                EXPECT_EQ(map.place(address.rank, address.offset), place);
            }
        }
    }
}

TEST(ShardMap, AgreesWithTheParameterTablesRanges) {
    const std::vector<Shape> shapes{Shape::matrix(10, 3)};
    const ShardMap map(shapes, 4);
    for (int rank = 0; rank < 4; ++rank) {
        EXPECT_EQ(map.piece(rank, 0)->rows, zero_rows(shapes[0], 4, rank, 0));
    }
}

TEST(ShardMap, SpreadsVectorsOverTheRanks) {
    // As in a decoder: two norms a layer at the same places, a number of tensors that the ranks
    // divide.
    std::vector<Shape> shapes;
    for (int layer = 0; layer < 8; ++layer) {
        shapes.insert(shapes.end(), {Shape::of_vector(64), Shape::matrix(64, 64),
                                     Shape::of_vector(64), Shape::matrix(64, 64)});
    }
    const ShardMap map(shapes, 4);
    for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(map.size(rank), map.size(0));
}

TEST(ShardMap, LeavesARankWithoutAPieceOfAVector) {
    const ShardMap map(std::vector<Shape>{Shape::of_vector(5)}, 2);
    EXPECT_EQ(map.owners(0).size(), 1U);
    EXPECT_NE(map.piece(0, 0).has_value(), map.piece(1, 0).has_value());
}

TEST(ShardMap, ParametersOfSomeRanksAreSplitAmongTheseAlone) {
    const std::vector<Shape> shapes{Shape::matrix(6, 2), Shape::matrix(5, 3)};
    const std::vector<DataRanks> among{{}, {.first = 1, .stride = 2}};
    const ShardMap map(shapes, 4, {}, among);
    EXPECT_EQ(map.owners(0).size(), 4U);
    EXPECT_FALSE(map.piece(0, 1) || map.piece(2, 1));
    EXPECT_EQ(map.piece(1, 1)->rows.size() + map.piece(3, 1)->rows.size(), 5);
    EXPECT_EQ(map.owner(1, 4).rank, 3);
}

TEST(ShardMap, RefusesWhatDoesNotExist) {
    const ShardMap map(small_model(), 2);
    EXPECT_THROW((void)map.pieces(2), InternalError);
    EXPECT_THROW((void)map.size(-1), InternalError);
    EXPECT_THROW((void)map.owners(100), InternalError);
    EXPECT_THROW((void)map.owner(0, 37), InternalError);
    EXPECT_THROW((void)map.owner(0, -1), InternalError);
    EXPECT_THROW((void)map.place(0, map.size(0)), InternalError);
    EXPECT_THROW((void)map.address({0, 0, 8}), InternalError);
}

}  // namespace
}  // namespace rankwise::parallel
