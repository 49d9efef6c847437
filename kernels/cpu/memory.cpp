#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/checked_heap.hpp"
#include "kernels/cpu/cpu_device.hpp"
#include "kernels/cpu/host_memory.hpp"
#include "kernels/cpu/row_split.hpp"

namespace rankwise::kernels::cpu {
namespace {

constexpr std::int64_t kMostBytes = std::int64_t{1} << 46;  // half of what an address can name

/// From this size on what goes from or to the host goes past the caches. It is read much later (a
/// checkpoint's copies, weights from a file), and a third of the traffic of an ordinary copy is the
/// old contents of the lines that are written.
constexpr std::size_t kPastCaches = std::size_t{1} << 20;

void copy_between(const std::byte* from, std::byte* to, std::size_t size) {
    if (size < kPastCaches) {
        std::memcpy(to, from, size);
        return;
    }
    constexpr std::size_t kLine = 64;
    const std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine;
    std::memcpy(to, from, head);
    std::size_t at = head;
    for (; at + kLine <= size; at += kLine) {
        for (std::size_t part = 0; part < kLine; part += sizeof(__m128i)) {
            const __m128i word =
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at + part));
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + at + part), word);
        }
    }
    _mm_sfence();
    std::memcpy(to + at, from + at, size - at);
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
    if (!from.empty()) copy_between(from.data(), at(to), from.size());
}

void CpuDevice::download(DeviceSpan<const std::byte> from, std::span<std::byte> to, Stream&) {
    require_equal("download", from.size(), static_cast<std::int64_t>(to.size()));
    if (!to.empty()) copy_between(at(from), to.data(), to.size());
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
