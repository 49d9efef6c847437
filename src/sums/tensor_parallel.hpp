// Sums over the tensor axis in canonical order, and the conjugate pairs of operations that carry
// all of tensor parallelism (NUMERICS N2, N10).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "parallel/communicator.hpp"
#include "src/base/reduction.hpp"
#include "src/sums/tools.hpp"

namespace rankwise::sums {

// Forward                                    Backward
// copy: every rank has the whole already     reduce: all_reduce()
// reduce: all_reduce()                       copy
// gather: gather_selected()                  scatter: each rank keeps the rows of what it holds
// to sequence: reduce_scatter()              from sequence: all_gather()
// from sequence: all_gather()                to sequence: reduce_scatter()
//
// exchange_rows() and gather_blocks() move alone.

/// Which ranks' partial sums make up a total, and in which order they are added.
struct RankTree {
    ReductionTree tree;  ///< over the members
    Range members;       ///< ranks of the axis that add and receive, this one among them
    std::vector<bool>
        present;  ///< by member: it has terms; others are skipped, never added as zero

    /// All ranks of an axis, each with terms. `degree` is one of tree.tensor_degrees().
    [[nodiscard]] static RankTree all(const ReductionTree& tree, int degree);
};

/// What a finished sum meets on its receiver: it is rounded to the type of the result, once, before
/// it is added to what is there (N1). Partial sums are fp32; what is gathered is the result.
struct Meeting {
    DeviceSpan<const float> bias;  ///< [cols] added to the sum first; or empty
    bool add = false;  ///< the sum is added to what is there (a residual): to = to + sum
};

/// How partial sums travel (physical).
enum class Route : std::uint8_t {
    automatic,  ///< direct where it sends no more bytes or the matrix is small, else by rows
    direct,     ///< one message to each member; everybody adds everything
    by_rows,    ///< all-to-all by rows, the receiver adds, then all-gather of the finished rows
};

/// Collective over the axis; each rank names its own members, groups of equal size and with `to` of
/// equal shape. Sums `partial` [rows, cols] of the members by the tree; every member's `to` holds
/// the result afterwards, the same bits everywhere. `partial` is dense, or empty on a member
/// without terms; it may not alias `to`.
void all_reduce(Tools tools, parallel::Communicator& axis, std::string_view label,
                const RankTree& order, kernels::ConstMatrix partial, kernels::Matrix to,
                const Meeting& meeting = {}, Route route = Route::automatic);

/// Collective over all ranks of the axis. The same where rank r receives rows[r] alone: `mine`. The
/// ranges follow each other and cover the rows; some may be empty.
void reduce_scatter(Tools tools, parallel::Communicator& axis, std::string_view label,
                    const RankTree& order, kernels::ConstMatrix partial,
                    std::span<const Range> rows, kernels::Matrix mine, const Meeting& meeting = {});

/// Collective over all ranks of the axis. The inverse: rows[r] of rank r to the whole on every
/// rank, of the same type.
void all_gather(Tools tools, parallel::Communicator& axis, std::string_view label,
                std::span<const Range> rows, kernels::ConstMatrix mine, kernels::Matrix whole);

/// Collective over all ranks of the axis. Row i of `whole` is the next row of `mine` of rank
/// holder[i]: a look-up in a table that is split by rows selects, it never adds zeros.
void gather_selected(Tools tools, parallel::Communicator& axis, std::string_view label,
                     std::span<const int> holder, kernels::ConstMatrix mine, kernels::Matrix whole);

/// Collective over all ranks of the axis. Rows of `mine` in the order of the ranks, sent[r] of them
/// for rank r; those that came, from[r] of rank r, stand in `received` in the same order.
void exchange_rows(Tools tools, parallel::Communicator& axis, std::string_view label,
                   kernels::ConstMatrix mine, std::span<const std::int64_t> sent,
                   std::span<const std::int64_t> from, kernels::Matrix received);

/// Collective over all ranks of the axis. counts[r] elements of rank r's dense fp32 matrix, one
/// after another in `received`.
void gather_blocks(Tools tools, parallel::Communicator& axis, std::string_view label,
                   kernels::ConstMatrix mine, std::span<const std::int64_t> counts,
                   DeviceSpan<float> received);

}  // namespace rankwise::sums
