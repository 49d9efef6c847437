// Splitting the rows of an op over the thread team.
#pragma once

#include <algorithm>

#include "kernels/cpu/thread_team.hpp"
#include "src/base/checked.hpp"

namespace rankwise::kernels::cpu {

/// Calls work(range) for ranges that cover [0, rows), each once. `row_cost` is about the number of
/// floats that a row moves: a call that moves little is not worth waking threads for.
template <class Work>
void for_row_ranges(ThreadTeam& team, std::int64_t rows, std::int64_t row_cost, const Work& work) {
    if (rows <= 0) return;
    constexpr std::int64_t kTaskCost = 8192;
    constexpr std::int64_t kTasksPerThread = 4;
    const std::int64_t by_cost = std::max<std::int64_t>(1, rows * row_cost / kTaskCost);
    const std::int64_t tasks =
        team.threads() == 1 ? 1 : std::min({rows, by_cost, kTasksPerThread * team.threads()});
    team.run(tasks, [&](std::int64_t task) { work(split(rows, tasks, task)); });
}

}  // namespace rankwise::kernels::cpu
