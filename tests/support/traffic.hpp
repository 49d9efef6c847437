// What the ranks of a thread world have sent, added up.
#pragma once

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "parallel/thread_world.hpp"

namespace rankwise::test {

/// Which counts are meant: of one communicator, one operation, some kinds of labels. What is not
/// named: any.
struct Sent {
    std::string_view over = {};
    std::optional<parallel::Op> by = {};
    std::vector<std::string_view> kinds = {};
    std::vector<std::string_view> other_than = {};  ///< kinds that are not meant
};

struct SentCounts {
    std::int64_t calls = 0;
    std::int64_t bytes = 0;
    friend bool operator==(const SentCounts&, const SentCounts&) = default;
};

inline SentCounts sent(const parallel::Traffic& traffic, const Sent& what) {
    const auto among = [](const std::vector<std::string_view>& kinds, std::string_view kind) {
        return std::ranges::find(kinds, kind) != kinds.end();
    };
    SentCounts counts;
    for (const parallel::Traffic::Row& row : traffic.rows()) {
        if (!what.over.empty() && row.communicator != what.over) continue;
        if (what.by && row.op != *what.by) continue;
        if (!what.kinds.empty() && !among(what.kinds, row.kind)) continue;
        if (among(what.other_than, row.kind)) continue;
        counts.calls += row.calls;
        counts.bytes += row.bytes;
    }
    return counts;
}

/// All ranks together.
inline SentCounts sent(const parallel::ThreadWorld& world, const Sent& what = {}) {
    SentCounts counts;
    for (int rank = 0; rank < world.size(); ++rank) {
        const SentCounts own = sent(*world.instruments(rank).traffic, what);
        counts.calls += own.calls;
        counts.bytes += own.bytes;
    }
    return counts;
}

}  // namespace rankwise::test
