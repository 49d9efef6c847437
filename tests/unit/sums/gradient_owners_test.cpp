// Gradients of chunks at the owners of their rows, and weights back from there: the bits of a loop
// over all chunks, whoever has which.
#include "src/sums/gradient_owners.hpp"

#include <gtest/gtest.h>

#include "parallel/thread_world.hpp"
#include "tests/unit/sums/rank.hpp"

namespace rankwise::sums {
namespace {

using kernels::ConstMatrix;
using kernels::Matrix;
using parallel::Communicator;

/// Some divide evenly over the ranks and some do not; one has fewer rows than there are ranks.
const std::vector<Shape> kShapes = {{6, 8}, {7, 3}, {1, 5}, {16, 16}};
const std::vector<ParameterId> kGroup = {0, 1, 2, 3};

/// The gradient of a parameter that chunk `chunk` of a wave has.
Values gradient(ParameterId id, std::size_t wave, std::size_t chunk) {
    const Shape& shape = kShapes[static_cast<std::size_t>(id)];
    return numbers(shape.size(),
                   static_cast<unsigned>(static_cast<std::size_t>(id) + 10 * chunk + 100 * wave));
}

Values sum_of_chunks(ParameterId id, const std::vector<std::vector<bool>>& waves) {
    Values sum(static_cast<std::size_t>(kShapes[static_cast<std::size_t>(id)].size()), 0.0F);
    for (std::size_t wave = 0; wave < waves.size(); ++wave) {
        for (std::size_t chunk = 0; chunk < waves[wave].size(); ++chunk) {
            if (!waves[wave][chunk]) continue;
            const Values part = gradient(id, wave, chunk);
            for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
        }
    }
    return sum;
}

void expect_sums(bool under_way, bool break_order) {
    const std::vector<std::vector<bool>> waves = {
        {true, true, true}, {true, false, true}, {false, true, false}};
    parallel::ThreadWorld world(3);
    world.run([&](Communicator& data) {
        Rank rank;
        const parallel::ShardMap owners(kShapes, data.size());
        GradientOwners sums(rank.tools(), data, kShapes, owners);
        sums.break_order(break_order);
        sums.reset();
        for (std::size_t wave = 0; wave < waves.size(); ++wave) {
            kernels::DeviceBuffer<float> memory;
            const auto own = [&](ParameterId id) -> ConstMatrix {
                EXPECT_TRUE(waves[wave][static_cast<std::size_t>(data.rank())])
                    << "a rank without a chunk was asked for it";
                const Shape& shape = kShapes[static_cast<std::size_t>(id)];
                memory = rank.device.put(gradient(id, wave, static_cast<std::size_t>(data.rank())));
                return ConstMatrix(memory.span(), shape.rows, shape.cols);
            };
            if (under_way) {
                sums.start_exchange("gradients:test", kGroup, waves[wave], own);
                // What was given is free on return.
                if (memory.size() > 0)
                    rank.device->zero(cast_span<std::byte>(memory.span()), rank.device.stream());
            } else {
                sums.exchange("gradients:test", kGroup, waves[wave], own);
            }
        }
        sums.finish_exchange();
        for (const parallel::ShardPiece& piece : owners.pieces(data.rank())) {
            const Values all = sum_of_chunks(piece.parameter, waves);
            const std::int64_t cols = kShapes[static_cast<std::size_t>(piece.parameter)].cols;
            const Values expected(all.begin() + piece.rows.begin * cols,
                                  all.begin() + piece.rows.end * cols);
            const Values got = rank.device.get(
                DeviceSpan<const float>(sums.totals().subspan(piece.offset, piece.size)));
            if (!break_order) {
                EXPECT_EQ(got, expected) << "parameter " << piece.parameter;
            } else if (piece.parameter == 3) {  // of few numbers the sum may be the same
                EXPECT_NE(got, expected);
            }
        }
    });
}

TEST(GradientOwners, AddChunksInAscendingOrder) {
    expect_sums(false, false);
}

TEST(GradientOwners, AddTheSameWhileTheyAreUnderWay) {
    expect_sums(true, false);
}

TEST(GradientOwners, AddInAnotherOrderWhenThatRuleIsBroken) {
    expect_sums(false, true);
}

TEST(AllGatherRows, BringsSmallAndLargeParametersTogether) {
    // The last two are large enough to be gathered where they lie; the one's rows do not divide
    // evenly.
    const std::vector<Shape> shapes = {{6, 8}, {1, 5}, {300, 1024}, {199, 1000}};
    parallel::ThreadWorld world(3);
    world.run([&](Communicator& data) {
        Rank rank;
        const parallel::ShardMap owners(shapes, data.size());
        std::vector<kernels::DeviceBuffer<float>> memory;
        for (std::size_t id = 0; id < shapes.size(); ++id) {
            Values values(static_cast<std::size_t>(shapes[id].size()), -1.0F);
            const Values right = numbers(shapes[id].size(), static_cast<unsigned>(id));
            if (const auto piece = owners.piece(data.rank(), static_cast<ParameterId>(id))) {
                for (std::int64_t i = piece->rows.begin * shapes[id].cols;
                     i < piece->rows.end * shapes[id].cols; ++i)
                    values[static_cast<std::size_t>(i)] = right[static_cast<std::size_t>(i)];
            }
            memory.push_back(rank.device.put(values));
        }
        all_gather_rows(rank.tools(), data, "weights:test", owners, kGroup, [&](ParameterId id) {
            const auto at = static_cast<std::size_t>(id);
            return Matrix(memory[at].span(), shapes[at].rows, shapes[at].cols);
        });
        for (std::size_t id = 0; id < shapes.size(); ++id)
            EXPECT_EQ(rank.device.get(memory[id]),
                      numbers(shapes[id].size(), static_cast<unsigned>(id)))
                << "parameter " << id;
    });
}

}  // namespace
}  // namespace rankwise::sums
