#include <algorithm>
#include <cstring>

#include "kernels/cpu/checked_heap.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/host_memory.hpp"
#include "kernels/cpu/past_caches.hpp"
#include "kernels/cpu/row_split.hpp"

namespace rankwise::kernels::cpu {
namespace {

constexpr std::int64_t kMostBytes = std::int64_t{1} << 46;  // half of what an address can name

/// Large copies from or to the host go past the caches: a checkpoint's, or weights from a file.
void copy_between(const std::byte* from, std::byte* to, std::int64_t size) {
    if (size < kPastCaches) {
        std::memcpy(to, from, static_cast<std::size_t>(size));
        return;
    }
    const std::int64_t offset =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % kCacheLine);
    std::int64_t at = (kCacheLine - offset) % kCacheLine;
    std::memcpy(to, from, static_cast<std::size_t>(at));
    for (; at + kCacheLine <= size; at += kCacheLine) copy_line_past(from + at, to + at);
    written_past();
    std::memcpy(to + at, from + at, static_cast<std::size_t>(size - at));
}

/// work(first, size) for pieces that cover so many bytes, shared out over the threads.
template <class Work>
void in_pieces(ThreadTeam& team, std::int64_t bytes, const Work& work) {
    constexpr std::int64_t kPiece = std::int64_t{1} << 15;
    for_row_ranges(team, ceil_div(bytes, kPiece), kPiece / 4, [&](Range pieces) {
        const std::int64_t first = pieces.begin * kPiece;
        work(first, static_cast<std::size_t>(std::min(pieces.end * kPiece, bytes) - first));
    });
}

void require_equal(const char* op, std::int64_t from, std::int64_t to) {
    ensure(from == to, "{}: {} bytes given for {} bytes", op, from, to);
}

}  // namespace

CpuDevice::CpuDevice(Isa isa, int threads, bool checked)
    : isa_(isa), team_(std::make_unique<ThreadTeam>(threads)) {
    if (checked) {
        checked_ = std::make_unique<CheckedHeap>();
        shift_ = checked_->shift();
    }
}

CpuDevice::~CpuDevice() = default;

std::byte* CpuDevice::allocate(std::int64_t bytes) {
    ensure(bytes >= 0, "allocate: {} bytes", bytes);
    if (bytes == 0) return nullptr;
    std::byte* memory = nullptr;
    if (bytes <= kMostBytes)
        memory = checked_ ? checked_->allocate(bytes) : take_host_memory(bytes);
    if (memory == nullptr) {
        throw EnvironmentError(
            fmt::format("out of memory: {} bytes wanted, {} in use by this device: use more ranks, "
                        "or lower what "
                        "the recipe holds at once (batch, chunk or cache sizes)",
                        bytes, bytes_in_use()));
    }
    in_use_.fetch_add(footprint(bytes), std::memory_order_relaxed);
    allocations_.fetch_add(1, std::memory_order_relaxed);
    return memory;
}

void CpuDevice::free(std::byte* handle, std::int64_t bytes) noexcept {
    if (handle == nullptr) return;
    if (checked_) {
        checked_->free(handle, bytes);
    } else {
        give_back_host_memory(handle, bytes);
    }
    in_use_.fetch_sub(footprint(bytes), std::memory_order_relaxed);
}

std::int64_t CpuDevice::footprint(std::int64_t bytes) const {
    return bytes < kMappedBytes ? bytes : host_memory_taken(bytes);
}

std::int64_t CpuDevice::bytes_in_use() const {
    return in_use_.load(std::memory_order_relaxed);
}

void CpuDevice::upload(std::span<const std::byte> from, DeviceSpan<std::byte> to, Stream&) {
    require_equal("upload", static_cast<std::int64_t>(from.size()), to.size());
    if (!from.empty()) copy_between(from.data(), at(to), to.size());
}

void CpuDevice::download(DeviceSpan<const std::byte> from, std::span<std::byte> to, Stream&) {
    require_equal("download", from.size(), static_cast<std::int64_t>(to.size()));
    if (!to.empty()) copy_between(at(from), to.data(), from.size());
}

void CpuDevice::copy(DeviceSpan<const std::byte> from, DeviceSpan<std::byte> to, Stream&) {
    require_equal("copy", from.size(), to.size());
    if (to.empty()) return;
    const std::byte* const source = at(from);
    std::byte* const target = at(to);
    in_pieces(*team_, to.size(), [&](std::int64_t first, std::size_t size) {
        std::memcpy(target + first, source + first, size);
    });
}

void CpuDevice::zero(DeviceSpan<std::byte> to, Stream&) {
    if (to.empty()) return;
    std::byte* const target = at(to);
    in_pieces(*team_, to.size(),
              [&](std::int64_t first, std::size_t size) { std::memset(target + first, 0, size); });
}

void CpuDevice::synchronize(Stream&) {}

std::byte* CpuDevice::wire_address(std::byte* handle) const {
    return handle == nullptr ? nullptr : at(handle);
}

}  // namespace rankwise::kernels::cpu
