// How the segments of a micro-batch lie in key blocks, and which query heads are added in which
// order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.hpp"
#include "src/base/checked.hpp"

namespace rankwise::kernels::cpu {

/// The keys of every path from a root to a segment, in blocks aligned to position 0. A block that
/// holds keys of one path alone belongs to the segment whose keys come last in it; blocks wholly
/// above a segment are shared with its siblings.
struct AttentionPlan {
    /// A tree of segments, its root last.
    struct Bundle {
        Range segments;
        Range rows;
        Range blocks;
        std::int64_t positions = 0;  ///< of its longest path
        double pairs = 0.0;          ///< of a row and a key
    };
    std::vector<Bundle> bundles;
    /// Rows of the keys of block b: block_rows[64 b ...]; behind the last key its row is repeated.
    std::vector<std::int64_t> block_rows;
    std::vector<std::int64_t> block_keys;  ///< that a block has
    /// The blocks of segment s's path, ascending, counted from the first of its bundle:
    /// tables[table_begin[s] ...]; segments without rows have none.
    std::vector<std::int32_t> tables;
    std::vector<std::int64_t> table_begin;

    [[nodiscard]] std::int64_t blocks() const { return std::ssize(block_keys); }
    [[nodiscard]] const std::int32_t* table(std::int64_t segment) const {
        return tables.data() + table_begin[static_cast<std::size_t>(segment)];
    }
    /// The largest size(bundle).
    template <class Size>
    [[nodiscard]] std::int64_t most(Size size) const {
        std::int64_t largest = 0;
        for (const Bundle& bundle : bundles)
            largest = std::max<std::int64_t>(largest, size(bundle));
        return largest;
    }
    /// Whether one KV head of one bundle a task keeps so many threads evenly busy.
    [[nodiscard]] bool bundles_fill(int threads, std::int64_t kv_heads) const;
};

/// Fills `plan`, keeping its memory.
/// @throws InternalError if the segments do not cover `rows` rows in order, are not in post-order,
/// or leave a gap between the positions of a segment and its parent's.
void plan_segments(std::span<const AttentionSegment> segments, std::int64_t rows,
                   AttentionPlan& plan);

/// One step of adding the query heads of a KV head (indices inside its group): to += from.
struct HeadSum {
    std::int64_t to = 0;
    std::int64_t from = 0;
};

/// The steps for one KV head, whose query heads are [kv_head * group, (kv_head + 1) * group):
/// `order` restricted to them. Appends to `steps`; returns the head that holds the total after
/// them.
/// @throws InternalError if one of the heads is not in `order`, or more than once.
std::int64_t head_sums(const Contraction& order, std::int64_t kv_head, std::int64_t group,
                       std::vector<HeadSum>& steps);

}  // namespace rankwise::kernels::cpu
