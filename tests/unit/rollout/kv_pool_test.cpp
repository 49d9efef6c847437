#include "src/rollout/kv_pool.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/small_model.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::rollout {
namespace {

class KvPoolTest : public testing::Test {
  protected:
    test::DeviceUnderTest device{test::plain_device()};
    KvPool pool{*device, 2, {.heads = 4, .kv_heads = 2, .key_dim = 8, .value_dim = 6}, 5};
};

TEST_F(KvPoolTest, PagesAreDifferentAndAllOfThemCanBeTaken) {
    EXPECT_EQ(pool.capacity(), 5);
    EXPECT_EQ(pool.free(), 5);
    std::set<PageId> pages;
    for (int i = 0; i < 5; ++i) pages.insert(pool.take());
    EXPECT_EQ(pages, (std::set<PageId>{0, 1, 2, 3, 4}));
    EXPECT_EQ(pool.free(), 0);
}

TEST_F(KvPoolTest, ASharedPageIsFreeWhenItsLastUserGivesItBack) {
    const PageId page = pool.take();
    pool.retain(page);
    pool.retain(page);
    pool.release(page);
    pool.release(page);
    EXPECT_EQ(pool.free(), 4);
    pool.release(page);
    EXPECT_EQ(pool.free(), 5);
}

TEST_F(KvPoolTest, AFreedPageIsUsedAgain) {
    for (int round = 0; round < 100; ++round) {
        std::vector<PageId> pages;
        for (int i = 0; i < 5; ++i) pages.push_back(pool.take());
        for (const PageId page : pages) pool.release(page);
    }
    EXPECT_EQ(pool.free(), 5);
}

TEST_F(KvPoolTest, TakingMoreThanThereAreIsAnError) {
    for (int i = 0; i < 5; ++i) (void)pool.take();
    EXPECT_THROW_WITH((void)pool.take(), InternalError, "all 5 pages");
}

TEST_F(KvPoolTest, GivingAPageBackTwiceIsAnError) {
    const PageId page = pool.take();
    pool.release(page);
    EXPECT_THROW_WITH(pool.release(page), InternalError, "given back twice");
    EXPECT_EQ(pool.free(), 5);
}

TEST_F(KvPoolTest, LayersHaveMemoryOfTheirOwnForEveryPage) {
    const kernels::KvPages first = pool.layer(0);
    const kernels::KvPages second = pool.layer(1);
    EXPECT_EQ(first.pages, 5);
    EXPECT_EQ(second.handle - first.handle,
              static_cast<std::ptrdiff_t>(sizeof(float)) * 5 * first.page_elements());
    EXPECT_EQ(pool.bytes(), 2 * (second.handle - first.handle));
}

TEST(PagesFor, ABlockHoldsSixtyFourPositions) {
    EXPECT_EQ(pages_for(0), 0);
    EXPECT_EQ(pages_for(1), 1);
    EXPECT_EQ(pages_for(64), 1);
    EXPECT_EQ(pages_for(65), 2);
}

}  // namespace
}  // namespace rankwise::rollout
