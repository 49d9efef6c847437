#include "src/base/philox.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace rankwise {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Known answers of Random123 (kat_vectors), philox4x32 with 10 rounds.
TEST(Philox, MatchesPublishedVectors) {
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
              (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(
        philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
        (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(
        philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
        (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformIsNeverZeroOrOne) {
    EXPECT_EQ(uniform_open(0), 0x1p-24F);
    EXPECT_EQ(uniform_open(0xFFFFFFFFU), 1.0F - 0x1p-24F);
}

TEST(Philox, StreamsDifferByEveryPartOfTheirName) {
    const std::uint32_t base = RandomStream(1, Purpose::sampling, 2, 3, 4).word(5, 6);
    EXPECT_EQ(base, RandomStream(1, Purpose::sampling, 2, 3, 4).word(5, 6));
    EXPECT_NE(base, RandomStream(2, Purpose::sampling, 2, 3, 4).word(5, 6));
    EXPECT_NE(base, RandomStream(1, Purpose::data_order, 2, 3, 4).word(5, 6));
    EXPECT_NE(base, RandomStream(1, Purpose::sampling, 2 + (1ULL << 32), 3, 4).word(5, 6));
    EXPECT_NE(base, RandomStream(1, Purpose::sampling, 2, 4, 4).word(5, 6));
    EXPECT_NE(base, RandomStream(1, Purpose::sampling, 2, 3, 5).word(5, 6));
    EXPECT_NE(base, RandomStream(1, Purpose::sampling, 2, 3, 4).word(6, 6));
    EXPECT_NE(base, RandomStream(1, Purpose::sampling, 2, 3, 4).word(5, 7));
}

TEST(Philox, ShuffleIsAPermutationAndBelowStaysBelow) {
    RandomSequence random(RandomStream(7, Purpose::data_order));
    std::vector<int> items(100);
    std::iota(items.begin(), items.end(), 0);
    std::vector<int> shuffled = items;
    random.shuffle(shuffled);
    EXPECT_NE(shuffled, items);
    std::sort(shuffled.begin(), shuffled.end());
    EXPECT_EQ(shuffled, items);
    for (int i = 0; i < 1000; ++i) {
        EXPECT_LT(random.below(7), 7U);
        const double u = random.uniform();
        EXPECT_GT(u, 0.0);
        EXPECT_LT(u, 1.0);
    }
}

}  // namespace
}  // namespace rankwise
