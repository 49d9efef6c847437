#include <algorithm>

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/matmul_call.hpp"

namespace rankwise::kernels::cpu {
namespace {

/// What a block of rows may take of the second-level cache; weights pass through the rest.
constexpr std::int64_t kBlockBytes = std::int64_t{768} << 10;
/// Rows of a block at least, since all weights are read for each, and at most.
constexpr std::int64_t kLeastRows = 3 * kRowMultiple;
constexpr std::int64_t kMostRows = 4 * kRowMultiple;

}  // namespace

void CpuDevice::run_over_rows(std::int64_t count, std::int64_t row_bytes, RowWork work) {
    if (count <= 0) return;
    const std::int64_t threads = team_->threads();
    const std::int64_t fitting = kBlockBytes / std::max<std::int64_t>(row_bytes, 1);
    const std::int64_t rows = std::clamp(fitting, kLeastRows, kMostRows);
    const std::int64_t blocks = round_up(ceil_div(count, rows), threads);
    const std::int64_t groups = ceil_div(count, kRowMultiple);
    // Few rows: each op is shared out over the threads by itself.
    if (threads > 1 && groups < 2 * threads * (kLeastRows / kRowMultiple)) {
        work({0, count});
        return;
    }
    team_->run(blocks, [&](std::int64_t block) {
        const Range part = split(groups, blocks, block);
        if (part.empty()) return;
        work(intersect({part.begin * kRowMultiple, part.end * kRowMultiple}, {0, count}));
    });
}

void CpuDevice::run_side_by_side(std::int64_t count, LaneWork work) {
    team_->run(count, work);
}

}  // namespace rankwise::kernels::cpu
