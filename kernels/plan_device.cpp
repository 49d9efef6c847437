#include "kernels/plan_device.hpp"

#include <algorithm>
#include <numeric>

#include "src/base/checked.hpp"

namespace rankwise::kernels {
namespace {

/// No process of a 64-bit machine has memory from here on.
constexpr std::uintptr_t kBase = std::uintptr_t{1} << 60;
constexpr std::int64_t kAlignment = 64;

}  // namespace

bool PlanDevice::owns(const std::byte* address) {
    return reinterpret_cast<std::uintptr_t>(address) >= kBase;
}

std::string PlanDevice::description() const {
    return "plan of " + like_.description();
}

std::unique_ptr<Stream> PlanDevice::make_stream() {
    return std::make_unique<Stream>();
}

std::byte* PlanDevice::allocate(std::int64_t bytes) {
    if (bytes == 0) return nullptr;
    auto* handle = reinterpret_cast<std::byte*>(kBase + next_);
    next_ += static_cast<std::uintptr_t>(round_up(bytes, kAlignment));
    in_use_ += footprint(bytes);
    ++allocations_;
    peak_ = std::max(peak_, in_use_);
    return handle;
}

void PlanDevice::free(std::byte* /*handle*/, std::int64_t bytes) noexcept {
    in_use_ -= footprint(bytes);
}

void PlanDevice::download(DeviceSpan<const std::byte> /*from*/, std::span<std::byte> to,
                          Stream& /*stream*/) {
    std::fill(to.begin(), to.end(), std::byte{0});
}

void PlanDevice::gating(const GatingArgs& args, Stream& /*stream*/) {
    // All experts alike, also where few rows choose: steps of about 5/8 of them.
    const std::int64_t experts = args.routing.experts;
    std::int64_t step = std::max<std::int64_t>(1, experts * 5 / 8);
    while (std::gcd(step, experts) != 1) ++step;
    for (std::size_t i = 0; i < args.experts.size(); ++i)
        args.experts[i] = narrow<std::int32_t>(static_cast<std::int64_t>(i) * step % experts);
}

std::int64_t PlanDevice::packed_bytes(const PackSpec& spec) const {
    return like_.packed_bytes(spec);
}

}  // namespace rankwise::kernels
