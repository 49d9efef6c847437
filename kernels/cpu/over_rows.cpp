#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/matmul_call.hpp"

namespace rankwise::kernels::cpu {
namespace {

/// Rows of a block, at most: few enough that their values stay in the second-level cache from one
/// op to the next, enough for all weights to be read for each block.
constexpr std::int64_t kBlockRows = 96;
/// Rows a thread from which on blocks are shared out.
constexpr std::int64_t kManyRows = 144;

}  // namespace

void CpuDevice::over_rows(std::int64_t count, FunctionRef<void(Range)> work) {
    if (count <= 0) return;
    const std::int64_t threads = team_->threads();
    // Few rows: each op is shared out over the threads by itself.
    if (threads > 1 && count < kManyRows * threads) {
        work({0, count});
        return;
    }
    const TileSplit rows(isa_, count);
    const std::int64_t blocks =
        round_up(ceil_div(rows.tiles(), kBlockRows / rows.tile_rows), threads);
    team_->run(blocks, [&](std::int64_t block) {
        const Range part = rows.rows_of(blocks, block);
        if (!part.empty()) work(part);
    });
}

void CpuDevice::side_by_side(std::int64_t count, FunctionRef<void(std::int64_t)> work) {
    team_->run(count, work);
}

}  // namespace rankwise::kernels::cpu
