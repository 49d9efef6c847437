#include "parallel/mirror_communicator.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace rankwise::parallel {
namespace {

const IsAbsent kNothingIsAbsent = [](const std::byte*) { return false; };

TEST(MirrorCommunicator, TakesEveryOtherRankForItself) {
    const auto world = make_mirror_world({.data = 4}, 2, kNothingIsAbsent);
    EXPECT_EQ(world->rank(), 2);
    EXPECT_EQ(world->size(), 4);
    std::vector<int> all(4);
    world->all_gather("numbers", std::vector<int>{7}, all);
    EXPECT_EQ(all, (std::vector<int>{7, 7, 7, 7}));
    EXPECT_EQ(world->all_reduce_sum("sum", std::int64_t{5}), 20);
    EXPECT_EQ(world->all_reduce_max("most", std::int64_t{5}), 5);
    const auto gathered = world->all_gather_v("lists", std::vector<int>{1, 2});
    EXPECT_EQ(gathered.values, (std::vector<int>{1, 2, 1, 2, 1, 2, 1, 2}));
    std::vector<int> received(8);
    const std::vector<std::int64_t> counts(4, 2);
    world->all_to_all_v("blocks", std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}, counts, received,
                        counts);
    EXPECT_EQ(received, (std::vector<int>{4, 5, 4, 5, 4, 5, 4, 5}));  // what rank 2 sends to itself
}

TEST(MirrorCommunicator, SplitsIntoTheAxesOfTheMesh) {
    const MeshShape shape{.data = 3, .pipeline = 2, .tensor = 2, .expert = 3};
    for (int rank = 0; rank < 12; ++rank) {
        const auto world = make_mirror_world(shape, rank, kNothingIsAbsent);
        const Mesh mesh(*world, shape);
        const Coordinates at = coordinates_of(shape, rank);
        EXPECT_EQ(mesh.axis(Axis::data).size(), 3);
        EXPECT_EQ(mesh.axis(Axis::data).rank(), at.data);
        EXPECT_EQ(mesh.axis(Axis::pipeline).rank(), at.pipeline);
        EXPECT_EQ(mesh.axis(Axis::tensor).rank(), at.tensor);
        EXPECT_EQ(mesh.axis(Axis::expert).size(), 3);
        EXPECT_EQ(mesh.axis(Axis::expert).rank(), at.expert);
    }
}

TEST(MirrorCommunicator, CountsWhatIsSentAlsoOverItsParts) {
    const auto traffic = std::make_shared<Traffic>();
    const MeshShape shape{.data = 3, .tensor = 2};
    const auto world = make_mirror_world(shape, 0, kNothingIsAbsent, {.traffic = traffic});
    const Mesh mesh(*world, shape);
    traffic->reset();
    std::vector<std::byte> all(30);
    mesh.axis(Axis::data).all_gather("numbers", std::vector<std::byte>(10), all);
    ASSERT_EQ(traffic->rows().size(), 1U);
    EXPECT_EQ(traffic->rows()[0].communicator, "data");
    EXPECT_EQ(traffic->rows()[0].bytes, 20);
}

TEST(MirrorCommunicator, LeavesMemoryThatIsNotThereAlone) {
    const auto world = make_mirror_world({.data = 2}, 0, [](const std::byte*) { return true; });
    std::vector<int> all{1, 2};
    world->all_gather("numbers", std::vector<int>{7}, all);
    EXPECT_EQ(all, (std::vector<int>{1, 2}));
}

}  // namespace
}  // namespace rankwise::parallel
