#include "kernels/cpu/attention_plan.hpp"

#include <algorithm>

namespace rankwise::kernels::cpu {
namespace {

const AttentionSegment& at(std::span<const AttentionSegment> segments, std::int64_t index) {
    return segments[static_cast<std::size_t>(index)];
}

void check_segments(std::span<const AttentionSegment> segments, std::int64_t rows) {
    const std::int64_t count = std::ssize(segments);
    std::int64_t row = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        const AttentionSegment& segment = at(segments, i);
        ensure(segment.row_begin == row && segment.rows >= 0,
               "attention: segment {} has rows [{}, {} + {}), expected from {} on", i,
               segment.row_begin, segment.row_begin, segment.rows, row);
        row += segment.rows;
    }
    ensure(row == rows, "attention: the segments have {} rows, the matrices {}", row, rows);
    std::int64_t root = count;
    for (std::int64_t i = count; i-- > 0;) {
        const AttentionSegment& segment = at(segments, i);
        if (segment.parent < 0) {
            root = i;
            ensure(segment.position == 0,
                   "attention: segment {} has no parent and begins at position {}, not 0", i,
                   segment.position);
            continue;
        }
        ensure(segment.parent > i && segment.parent <= root && root < count,
               "attention: segment {} has parent {}; segments stand in post-order, each before its "
               "parent and inside its tree, which ends at {}",
               i, segment.parent, root);
        const AttentionSegment& parent = at(segments, segment.parent);
        ensure(segment.position == parent.position + parent.rows,
               "attention: segment {} begins at position {}, but its parent {} ends at {}", i,
               segment.position, segment.parent, parent.position + parent.rows);
    }
}

}  // namespace

bool AttentionPlan::bundles_fill(int threads, std::int64_t kv_heads) const {
    if (threads == 1) return true;
    // Whoever takes the longest task last keeps the others waiting for it.
    constexpr double kTasksAThread = 8.0;
    double total = 0.0;
    double longest = 0.0;
    for (const Bundle& bundle : bundles) {
        total += bundle.pairs;
        longest = std::max(longest, bundle.pairs);
    }
    return longest * kTasksAThread * threads <= total * static_cast<double>(kv_heads);
}

void plan_segments(std::span<const AttentionSegment> segments, std::int64_t rows,
                   AttentionPlan& plan) {
    check_segments(segments, rows);
    plan.bundles.clear();
    plan.block_rows.clear();
    plan.block_keys.clear();
    plan.tables.clear();
    plan.table_begin.assign(segments.size(), 0);
    for (std::int64_t i = std::ssize(segments); i-- > 0;) {  // parents first
        const AttentionSegment& segment = at(segments, i);
        if (segment.parent < 0) {
            const std::int64_t end = segment.row_begin + segment.rows;
            plan.bundles.push_back({.segments = {i, i + 1},
                                    .rows = {end, end},
                                    .blocks = {plan.blocks(), plan.blocks()}});
        }
        AttentionPlan::Bundle& bundle = plan.bundles.back();
        bundle.segments.begin = i;
        bundle.rows.begin = segment.row_begin;
        if (segment.rows == 0) continue;
        bundle.pairs +=
            static_cast<double>(segment.rows) *
            (static_cast<double>(segment.position) + static_cast<double>(segment.rows + 1) / 2.0);
        std::int64_t above = segment.parent;
        while (above >= 0 && at(segments, above).rows == 0) above = at(segments, above).parent;

        const std::int64_t keys = segment.position + segment.rows;
        bundle.positions = std::max(bundle.positions, keys);
        const std::int64_t first = segment.position / kKeyBlock;
        const std::int64_t end = ceil_div(keys, kKeyBlock);
        const std::int64_t inherited = segment.position % kKeyBlock;
        const std::int64_t own_block = plan.blocks() - bundle.blocks.begin;
        const std::int64_t table = std::ssize(plan.tables);
        plan.table_begin[static_cast<std::size_t>(i)] = table;
        for (std::int64_t block = 0; block < first; ++block) {
            plan.tables.push_back(plan.table(above)[block]);
        }
        for (std::int64_t block = first; block < end; ++block) {
            plan.tables.push_back(narrow<std::int32_t>(own_block + block - first));
            plan.block_keys.push_back(std::min(kKeyBlock, keys - block * kKeyBlock));
        }
        for (std::int64_t j = 0; j < inherited; ++j) {
            const std::int64_t shared = bundle.blocks.begin + plan.table(above)[first];
            plan.block_rows.push_back(
                plan.block_rows[static_cast<std::size_t>(shared * kKeyBlock + j)]);
        }
        for (std::int64_t row = 0; row < segment.rows; ++row) {
            plan.block_rows.push_back(segment.row_begin + row);
        }
        plan.block_rows.resize(static_cast<std::size_t>(plan.blocks() * kKeyBlock),
                               segment.row_begin + segment.rows - 1);
        bundle.blocks.end = plan.blocks();
    }
    std::ranges::reverse(plan.bundles);
}

namespace {

/// The node of `order`'s tree over leaves [leaf, leaf + width): the head that holds its sum, -1 if
/// it has none.
std::int64_t sum_node(const Contraction& order, std::size_t level, std::int64_t leaf,
                      std::int64_t width, Range heads, std::vector<HeadSum>& steps) {
    std::int64_t total = -1;
    const auto append = [&](std::int64_t head) {
        if (head < 0) return;
        if (total < 0) {
            total = head;
        } else {
            steps.push_back({total, head});
        }
    };
    if (level == order.tree.radices.size()) {
        for (Range range : order.leaves[static_cast<std::size_t>(leaf)]) {
            const Range mine = intersect(range, heads);
            for (std::int64_t head = mine.begin; head < mine.end; ++head) {
                append(head - heads.begin);
            }
        }
        return total;
    }
    const std::int64_t radix = order.tree.radices[level];
    for (std::int64_t child = 0; child < radix; ++child) {
        append(sum_node(order, level + 1, leaf + child * (width / radix), width / radix, heads,
                        steps));
    }
    return total;
}

}  // namespace

std::int64_t head_sums(const Contraction& order, std::int64_t kv_head, std::int64_t group,
                       std::vector<HeadSum>& steps) {
    const Range heads{kv_head * group, (kv_head + 1) * group};
    ensure(std::ssize(order.leaves) == order.tree.leaves(),
           "attention: the order of heads has {} leaves, its tree {}", order.leaves.size(),
           order.tree.leaves());
    for (std::int64_t head = heads.begin; head < heads.end; ++head) {
        std::int64_t times = 0;
        for (const auto& leaf : order.leaves) {
            times += std::count_if(leaf.begin(), leaf.end(),
                                   [&](Range range) { return range.contains(head); });
        }
        ensure(times == 1, "attention: head {} is {} times in the order of heads, expected once",
               head, times);
    }
    return sum_node(order, 0, 0, order.tree.leaves(), heads, steps);
}

}  // namespace rankwise::kernels::cpu
