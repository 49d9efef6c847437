// Sums over the tensor axis: the bits of one rank that adds the same tree.
#include "src/sums/tensor_parallel.hpp"

#include <gtest/gtest.h>

#include <memory>

#include "parallel/thread_world.hpp"
#include "src/base/tree_sum.hpp"
#include "tests/support/traffic.hpp"
#include "tests/unit/sums/rank.hpp"

namespace rankwise::sums {
namespace {

using kernels::Matrix;
using parallel::Communicator;

struct Case {
    std::vector<int> radices;  ///< over the ranks
    std::int64_t rows;
    std::vector<bool> absent = {};
};

Values added_by_hand(const ReductionTree& tree, std::vector<Values> parts,
                     const std::vector<bool>& present) {
    const int total = tree_sum(
        tree, [&](int rank) { return bool{present[static_cast<std::size_t>(rank)]}; },
        [&](int to, int from) {
            Values& sum = parts[static_cast<std::size_t>(to)];
            for (std::size_t i = 0; i < sum.size(); ++i)
                sum[i] = sum[i] + parts[static_cast<std::size_t>(from)][i];
        });
    return parts[static_cast<std::size_t>(total)];
}

const std::vector<Case>& cases() {
    static const std::vector<Case> all{
        {{2}, 5},
        {{2}, 1},
        {{3}, 7},
        {{2, 2}, 3},
        {{2, 2}, 64, {false, true, false, false}},
        {{3, 3}, 20},
        {{2, 7}, 33},
        {{2, 2, 2}, 100, {true, false, false, false, false, true, false, false}},
        {{5}, 2}};
    return all;
}

constexpr std::int64_t kCols = 24;

/// Values rounded to bf16 and widened again.
Values rounded(Values values) {
    for (float& value : values) value = float_from_bf16(bf16_from_float(value));
    return values;
}

/// A matrix of bf16 that holds these values, and what one holds.
Matrix bf16_matrix(Rank& rank, const Values& values, std::int64_t rows) {
    const Matrix from = rank.matrix(values, rows, kCols);
    const Matrix to(rank.arena.take<std::byte>(2 * rows * kCols).handle(), DType::bf16, rows, kCols,
                    kCols);
    rank.device->round({.from = from, .to = to}, rank.device.stream());
    return to;
}
Values values_of_bf16(Rank& rank, Matrix matrix) {
    Values values;
    for (const std::uint16_t bits : rank.device.get(DeviceSpan<const std::uint16_t>(
             reinterpret_cast<const std::uint16_t*>(matrix.handle), matrix.rows * matrix.cols)))
        values.push_back(float_from_bf16(bits));
    return values;
}

/// What the ranks of a case bring, and what it comes to.
struct Brought {
    explicit Brought(const Case& one) : rows(one.rows), tree{one.radices}, ranks(tree.leaves()) {
        present.assign(static_cast<std::size_t>(ranks), true);
        for (std::size_t i = 0; i < one.absent.size(); ++i) present[i] = !one.absent[i];
        for (int r = 0; r < ranks; ++r)
            parts.push_back(numbers(rows * kCols, static_cast<unsigned>(r)));
        sum = added_by_hand(tree, parts, present);
    }
    [[nodiscard]] RankTree order() const {
        RankTree all = RankTree::all(tree, ranks);
        all.present = present;
        return all;
    }
    [[nodiscard]] Matrix partial(Rank& rank, int number) const {
        const auto self = static_cast<std::size_t>(number);
        return present[self] ? rank.matrix(parts[self], rows, kCols) : Matrix();
    }

    std::int64_t rows;
    ReductionTree tree;
    int ranks;
    std::vector<bool> present;
    std::vector<Values> parts;
    Values sum;
    Values bias = numbers(kCols, 100);
    Values residual = numbers(rows * kCols, 101);
};

/// What a sum comes to by one route, alone and with bias on top of a residual.
void expect_sums(const Brought& brought, Route route, const auto& matrix_of, const auto& values_of,
                 const Values& alone, const Values& met) {
    parallel::ThreadWorld world(brought.ranks);
    world.run([&](Communicator& axis) {
        Rank rank;
        const RankTree order = brought.order();
        const Matrix partial = brought.partial(rank, axis.rank());
        const Matrix to = matrix_of(rank);
        all_reduce(rank.tools(), axis, "sums:test", order, partial, to, {}, route);
        EXPECT_EQ(values_of(rank, to), alone);
        const Matrix stream = matrix_of(rank);
        const DeviceSpan<float> biases(
            reinterpret_cast<float*>(rank.matrix(brought.bias, 1, kCols).handle), kCols);
        all_reduce(rank.tools(), axis, "sums:test", order, partial, stream,
                   {.bias = biases, .add = true}, route);
        EXPECT_EQ(values_of(rank, stream), met);
    });
}

TEST(AllReduce, OfBf16RoundsTheWholeSumOnceAndThenWhatItIsAddedTo) {
    for (const Case& one : cases()) {
        const Brought brought(one);
        const Values residual = rounded(brought.residual);
        Values met = brought.sum;
        for (std::size_t i = 0; i < met.size(); ++i)
            met[i] = brought.sum[i] + brought.bias[i % kCols];
        met = rounded(met);
        for (std::size_t i = 0; i < met.size(); ++i) met[i] = residual[i] + met[i];
        met = rounded(met);
        const auto matrix_of = [&](Rank& rank) { return bf16_matrix(rank, residual, one.rows); };
        for (const Route route : {Route::direct, Route::by_rows})
            expect_sums(brought, route, matrix_of, values_of_bf16, rounded(brought.sum), met);
    }
}

TEST(AllReduce, EveryRankHasTheBitsOfTheTreeByEveryRouteAndWithBiasAndResidual) {
    for (const Case& one : cases()) {
        const Brought brought(one);
        Values met = brought.sum;
        for (std::size_t i = 0; i < met.size(); ++i)
            met[i] = brought.residual[i] + (brought.sum[i] + brought.bias[i % kCols]);
        const auto matrix_of = [&](Rank& rank) {
            return rank.matrix(brought.residual, one.rows, kCols);
        };
        const auto values_of = [](Rank& rank, Matrix matrix) { return rank.values(matrix); };
        for (const Route route : {Route::automatic, Route::direct, Route::by_rows})
            expect_sums(brought, route, matrix_of, values_of, brought.sum, met);
    }
}

TEST(AllReduce, GroupsOfTheAxisAddTheirOwn) {
    // Ranks 0 to 2 and 3 to 5: three ranks that hold one KV head each.
    const ReductionTree tree{{3}};
    for (const Route route : {Route::direct, Route::by_rows}) {
        parallel::ThreadWorld world(6);
        world.run([&](Communicator& axis) {
            Rank rank;
            const int first = axis.rank() / 3 * 3;
            std::vector<Values> parts;
            for (int r = 0; r < 3; ++r)
                parts.push_back(numbers(4 * kCols, static_cast<unsigned>(first + r)));
            const RankTree order{tree, {first, first + 3}, {true, true, true}};
            const Matrix partial =
                rank.matrix(parts[static_cast<std::size_t>(axis.rank() - first)], 4, kCols);
            const Matrix to = rank.matrix(Values(4 * kCols), 4, kCols);
            all_reduce(rank.tools(), axis, "sums:test", order, partial, to, {}, route);
            EXPECT_EQ(rank.values(to), added_by_hand(tree, parts, {true, true, true}));
        });
    }
}

/// What a rank sends for a sum over `ranks`, [rows, kCols] of fp32.
test::SentCounts sent_for_a_sum(int ranks, std::int64_t rows, Route route) {
    parallel::ThreadWorld world(ranks);
    world.run([&](Communicator& axis) {
        Rank rank;
        const Values zeros(static_cast<std::size_t>(rows * kCols));
        const Matrix to = rank.matrix(zeros, rows, kCols);
        all_reduce(rank.tools(), axis, "sums:test", RankTree::all({{ranks}}, ranks),
                   rank.matrix(zeros, rows, kCols), to, {}, route);
    });
    test::SentCounts counts = test::sent(world);
    EXPECT_EQ(counts.calls % ranks, 0);
    return {counts.calls / ranks, counts.bytes / ranks};
}

TEST(AllReduce, DirectSendsOneMessageToEachRankAndByRowsTwoOfAShare) {
    for (const std::int64_t ranks : {2, 3, 5, 8}) {
        const std::int64_t rows = 8 * ranks;
        const std::int64_t size = rows * kCols * 4;
        using test::SentCounts;
        EXPECT_EQ(sent_for_a_sum(narrow<int>(ranks), rows, Route::direct),
                  (SentCounts{1, (ranks - 1) * size}));
        EXPECT_EQ(sent_for_a_sum(narrow<int>(ranks), rows, Route::by_rows),
                  (SentCounts{2, 2 * (ranks - 1) * size / ranks}));
    }
}

/// Up to 64 KiB of them, (n - 1)(n - 2) / n times the sum's size: a few rows of a decode step are
/// far below, those of a training pass above.
TEST(AllReduce, GoesDirectAsLongAsTheExtraBytesCostNoMoreThanATurn) {
    for (const std::int64_t ranks : {3, 4, 8}) {
        const std::int64_t extra = (ranks - 1) * (ranks - 2);  // of a sum's size, over `ranks`
        const std::int64_t most = 65536 * ranks / (extra * 4 * kCols);
        for (const auto& [rows, route] :
             {std::pair(std::int64_t{1}, Route::direct), std::pair(most, Route::direct),
              std::pair(most + 1, Route::by_rows)}) {
            EXPECT_EQ(sent_for_a_sum(narrow<int>(ranks), rows, Route::automatic),
                      sent_for_a_sum(narrow<int>(ranks), rows, route))
                << rows << " rows on " << ranks << " ranks";
        }
    }
    // Two ranks send as many bytes either way.
    EXPECT_EQ(sent_for_a_sum(2, 20'000, Route::automatic),
              sent_for_a_sum(2, 20'000, Route::direct));
}

TEST(ReduceScatter, GivesEachRankItsRowsAndAllGatherIsItsInverse) {
    for (const Case& one : cases()) {
        const Brought brought(one);
        const Values& sum = brought.sum;
        parallel::ThreadWorld world(brought.ranks);
        world.run([&](Communicator& axis) {
            Rank rank;
            const Matrix partial = brought.partial(rank, axis.rank());
            // Uneven, and the first rank has none.
            std::vector<Range> all{{0, 0}};
            for (int r = 1; r < brought.ranks; ++r)
                all.push_back(split(one.rows, brought.ranks - 1, r - 1));
            const Range rows = all[static_cast<std::size_t>(axis.rank())];
            const Matrix mine = rank.matrix(Values(static_cast<std::size_t>(rows.size() * kCols)),
                                            rows.size(), kCols);
            reduce_scatter(rank.tools(), axis, "sums:test", brought.order(), partial, all, mine);
            const Values expected(sum.begin() + rows.begin * kCols, sum.begin() + rows.end * kCols);
            EXPECT_EQ(rank.values(mine), expected);
            const Matrix whole = rank.matrix(Values(sum.size()), one.rows, kCols);
            all_gather(rank.tools(), axis, "sums:test", all, mine, whole);
            EXPECT_EQ(rank.values(whole), sum);
        });
    }
}

TEST(GatherSelected, RowsComeFromTheRanksThatHoldThem) {
    parallel::ThreadWorld world(3);
    const std::vector<int> holder{2, 0, 0, 2, 2};  // rank 1 holds none of them
    world.run([&](Communicator& axis) {
        Rank rank;
        Values mine;
        std::int64_t rows = 0;
        for (std::size_t i = 0; i < holder.size(); ++i) {
            if (holder[i] != axis.rank()) continue;
            mine.insert(mine.end(), 4, static_cast<float>(i));
            ++rows;
        }
        const Matrix whole = rank.matrix(Values(20), 5, 4);
        gather_selected(rank.tools(), axis, "sums:test", holder, rank.matrix(mine, rows, 4), whole);
        Values expected;
        for (int i = 0; i < 5; ++i) expected.insert(expected.end(), 4, static_cast<float>(i));
        EXPECT_EQ(rank.values(whole), expected);
    });
}

}  // namespace
}  // namespace rankwise::sums
