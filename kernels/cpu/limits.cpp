#include "kernels/limits.hpp"

#include <array>
#include <atomic>

#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/isa_choice.hpp"
#include "kernels/cpu/limit_kernels.hpp"

namespace rankwise::kernels::cpu {
namespace {

/// One way to walk through memory; machines differ in which is fastest.
struct Pattern {
    std::int64_t streams;  ///< places that a thread reads side by side
    std::int64_t ahead;    ///< floats between what is asked for and what is read
};
constexpr std::array<Pattern, 6> kPatterns{{{1, 0}, {2, 0}, {4, 0}, {8, 0}, {1, 1024}, {4, 512}}};

/// Floats of one stream at a time: streams lie this far apart, so that a thread goes through a part
/// of memory once and in order.
constexpr std::int64_t kStretch = std::int64_t{16} * 4096;

}  // namespace

std::int64_t CpuDevice::spin(Arithmetic kind, std::int64_t rounds, Stream& /*stream*/) {
    if (kind == Arithmetic::bf16 && isa_ != Isa::avx512_bf16) return 0;
    const LimitKernels& kernels =
        has_avx512(isa_) ? avx512::limit_kernels() : avx2::limit_kernels();
    std::atomic<std::int64_t> done{0};
    team_->run(team_->threads(), [&](std::int64_t) {
        done += kind == Arithmetic::bf16 ? spin_bf16_dot(rounds) : kernels.spin(rounds);
    });
    return 2 * done;
}

int CpuDevice::read_patterns() const {
    return static_cast<int>(kPatterns.size());
}

float CpuDevice::read(DeviceSpan<const float> from, int pattern, Stream& /*stream*/) {
    ensure(pattern >= 0 && pattern < read_patterns(), "read: pattern {} of {}", pattern,
           read_patterns());
    const Pattern& way = kPatterns[static_cast<std::size_t>(pattern)];
    const LimitKernels& kernels =
        has_avx512(isa_) ? avx512::limit_kernels() : avx2::limit_kernels();
    const float* floats = at(from);
    const std::int64_t piece = way.streams * kStretch;
    const std::int64_t pieces = from.size() / piece;
    // More tasks than threads, so that a thread that is held up costs less.
    const std::int64_t tasks = std::min(pieces, team_->threads() * std::int64_t{16});
    std::atomic<float> total{0.0F};
    team_->run(tasks, [&](std::int64_t task) {
        const Range mine = split(pieces, tasks, task);
        float sum = 0.0F;
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            sum += kernels.read(floats + i * piece, kStretch, way.streams, kStretch, way.ahead);
        }
        total.fetch_add(sum, std::memory_order_relaxed);
    });
    float sum = total.load();
    for (std::int64_t i = pieces * piece; i < from.size(); ++i) sum += floats[i];
    return sum;
}

}  // namespace rankwise::kernels::cpu
