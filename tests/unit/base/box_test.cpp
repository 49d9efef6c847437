#include "src/base/box.hpp"

#include <gtest/gtest.h>

#include "src/base/parameter_table.hpp"
#include "src/base/uint128.hpp"

namespace rankwise {
namespace {

TEST(Box, IntersectionOfDisjointBoxesIsEmpty) {
    const Box a{{0, 4}, {0, 4}};
    EXPECT_EQ(intersect(a, Box{{2, 6}, {1, 3}}), (Box{{2, 4}, {1, 3}}));
    EXPECT_TRUE(intersect(a, Box{{4, 6}, {0, 4}}).empty());
}

TEST(ZeroRows, CoverEveryRowOnceForAnyNumberOfRanks) {
    for (const Shape shape : {Shape::matrix(7, 3), Shape::of_vector(5), Shape::matrix(100, 1)}) {
        for (int ranks : {1, 2, 3, 8}) {
            for (int turn : {0, 1, 5}) {
                std::int64_t covered = 0;
                for (int rank = 0; rank < ranks; ++rank) {
                    covered += zero_rows(shape, ranks, rank, turn).size();
                }
                EXPECT_EQ(covered, shape.rows);
            }
        }
    }
}

TEST(UInt128, CarriesAndPrints) {
    UInt128 a{~0ULL, 0};
    a += UInt128{1, 0};
    EXPECT_EQ(a, (UInt128{0, 1}));
    EXPECT_EQ(to_hex(a), "00000000000000010000000000000000");
}

}  // namespace
}  // namespace rankwise
