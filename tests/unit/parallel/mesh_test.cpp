#include "parallel/mesh.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "parallel/thread_world.hpp"
#include "src/base/error.hpp"

namespace rankwise::parallel {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Mesh, PutsTensorRanksNextToEachOtherThenDataThenPipeline) {
    const MeshShape shape{.data = 3, .pipeline = 2, .tensor = 2, .expert = 3};
    EXPECT_EQ(coordinates_of(shape, 0), (Coordinates{0, 0, 0, 0}));
    EXPECT_EQ(coordinates_of(shape, 1), (Coordinates{0, 0, 1, 1}));
    EXPECT_EQ(coordinates_of(shape, 2), (Coordinates{1, 0, 0, 2}));
    EXPECT_EQ(coordinates_of(shape, 5), (Coordinates{2, 0, 1, 2}));
    EXPECT_EQ(coordinates_of(shape, 6), (Coordinates{0, 1, 0, 0}));
    for (int rank = 0; rank < 12; ++rank) {
        const Coordinates at = coordinates_of(shape, rank);
        EXPECT_EQ(rank_of(shape, at.data, at.pipeline, at.tensor), rank);
    }
}

TEST(Mesh, GivesEveryAxisTheRanksThatDifferOnItAlone) {
    for (const MeshShape shape :
         {MeshShape{2, 2, 2, 4}, MeshShape{2, 2, 2, 2}, MeshShape{4, 1, 2, 8},
          MeshShape{3, 1, 2, 2}, MeshShape{1, 1, 1, 1}}) {
        ThreadWorld world(static_cast<int>(shape.ranks()));
        world.run([&](Communicator& comm) {
            const Mesh mesh(comm, shape);
            const Coordinates& mine = mesh.coordinates();
            const std::int64_t rank = comm.rank();
            const auto members = [&](Axis axis) {
                return mesh.axis(axis).all_gather_v("test", std::span(&rank, 1)).values;
            };
            EXPECT_EQ(mesh.degree(Axis::data), shape.data);
            EXPECT_EQ(mesh.degree(Axis::pipeline), shape.pipeline);
            EXPECT_EQ(mesh.degree(Axis::tensor), shape.tensor);
            EXPECT_EQ(mesh.degree(Axis::expert), shape.expert);
            EXPECT_EQ(mesh.axis(Axis::expert).rank(), mine.expert);
            EXPECT_EQ(mesh.axis(Axis::data).name(), "data");

            const auto data = members(Axis::data);
            const auto pipeline = members(Axis::pipeline);
            const auto tensor = members(Axis::tensor);
            for (int i = 0; i < shape.data; ++i) {
                EXPECT_EQ(data[static_cast<std::size_t>(i)],
                          rank_of(shape, i, mine.pipeline, mine.tensor));
            }
            for (int i = 0; i < shape.pipeline; ++i) {
                EXPECT_EQ(pipeline[static_cast<std::size_t>(i)],
                          rank_of(shape, mine.data, i, mine.tensor));
            }
            for (int i = 0; i < shape.tensor; ++i) {
                EXPECT_EQ(tensor[static_cast<std::size_t>(i)],
                          rank_of(shape, mine.data, mine.pipeline, i));
            }
            // Consecutive ranks of one stage.
            const auto expert = members(Axis::expert);
            for (std::size_t i = 0; i < expert.size(); ++i) {
                EXPECT_EQ(expert[i], rank - mine.expert + static_cast<int>(i));
                EXPECT_EQ(coordinates_of(shape, static_cast<int>(expert[i])).pipeline,
                          mine.pipeline);
            }
        });
    }
}

TEST(Mesh, SaysWhatFitsWhenDegreesDoNotMultiplyToTheWorld) {
    const auto problems = check_shape({.data = 2, .tensor = 3}, 4);
    ASSERT_EQ(problems.size(), 1U);
    EXPECT_EQ(
        problems[0],
        "parallel.data x pipeline x tensor = 2 x 1 x 3 = 6 ranks, but 4 were started: start "
        "6, or choose one of 2 x 1 x 2, 4 x 1 x 1, 1 x 1 x 4, 2 x 2 x 1, 1 x 2 x 2, 1 x 4 x 1");
}

TEST(Mesh, ListsTheExpertDegreesThatDivideAStage) {
    EXPECT_THAT(check_shape({.data = 3, .tensor = 2, .expert = 4}, 6),
                ElementsAre("parallel.expert = 4 does not divide data x tensor = 3 x 2 = 6: choose "
                            "one of 1, 2, 3, 6"));
}

TEST(Mesh, ReportsAllProblemsAtOnce) {
    EXPECT_EQ(check_shape({.data = 2, .tensor = 3, .expert = 4}, 4).size(), 2U);
    EXPECT_THAT(check_shape({.data = 0, .tensor = -1}, 4),
                ElementsAre(HasSubstr("parallel.data = 0"), HasSubstr("parallel.tensor = -1")));
    EXPECT_THAT(check_shape({.data = 2, .pipeline = 2, .tensor = 2, .expert = 4}, 8), IsEmpty());
}

TEST(Mesh, FillsTheDataAxisWithWhatIsLeft) {
    EXPECT_EQ(fill_data({.data = 0, .pipeline = 2, .tensor = 2}, 12).data, 3);
    EXPECT_EQ(fill_data({.data = 0, .pipeline = 1, .tensor = 5}, 12).data, 1);
    EXPECT_EQ(fill_data({.data = 7}, 12).data, 7);
    EXPECT_EQ(fill_data({.data = 0, .tensor = 0}, 12).data, 1);
}

TEST(Mesh, RefusesAShapeThatDoesNotFit) {
    ThreadWorld world(2);
    EXPECT_THROW(world.run([](Communicator& comm) { const Mesh mesh(comm, {.data = 3}); }),
                 BadInput);
}

TEST(Mesh, NamesItsShape) {
    EXPECT_EQ(to_string(MeshShape{2, 1, 4, 8}), "data 2 x pipeline 1 x tensor 4 (expert 8)");
}

}  // namespace
}  // namespace rankwise::parallel
