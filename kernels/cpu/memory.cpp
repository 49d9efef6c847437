#include <immintrin.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "kernels/cpu/checked_heap.hpp"
#include "kernels/cpu/cpu_device.hpp"

namespace rankwise::kernels::cpu {
namespace {

constexpr std::int64_t kAlignment = 64;
constexpr std::int64_t kPage = 4096;
constexpr std::int64_t kHugePage = std::int64_t{2} << 20;
// From this size on memory is mapped by itself, so that what is given back is the system's at once
// and the process is as large as what it holds.
constexpr std::int64_t kMapped = std::int64_t{1} << 20;
// From this size on it is aligned to huge pages and asks for them: packed weights are read in long
// strides.
constexpr std::int64_t kLarge = 2 * kHugePage;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 46;  // half of what an address can name

std::int64_t taken_bytes(std::int64_t bytes) {
    return round_up(bytes, bytes >= kLarge ? kHugePage : bytes >= kMapped ? kPage : kAlignment);
}

std::byte* map(std::int64_t size) {
    void* memory = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

void unmap(std::byte* from, std::int64_t size) {
    if (size > 0) ::munmap(from, static_cast<std::size_t>(size));
}

std::byte* allocate_plain(std::int64_t bytes) {
    const std::int64_t size = taken_bytes(bytes);
    if (bytes < kMapped) {
        return static_cast<std::byte*>(std::aligned_alloc(static_cast<std::size_t>(kAlignment),
                                                          static_cast<std::size_t>(size)));
    }
    if (bytes < kLarge) return map(size);
    std::byte* all = map(size + kHugePage);
    if (all == nullptr) return nullptr;
    const auto address = reinterpret_cast<std::uintptr_t>(all);
    const auto before = round_up(static_cast<std::int64_t>(address), kHugePage) -
                        static_cast<std::int64_t>(address);
    std::byte* memory = all + before;
    unmap(all, before);
    unmap(memory + size, kHugePage - before);
    // Advice only: where it is refused everything works with small pages.
    ::madvise(memory, static_cast<std::size_t>(size), MADV_HUGEPAGE);
    return memory;
}

void free_plain(std::byte* memory, std::int64_t bytes) {
    if (bytes < kMapped) {
        std::free(memory);
    } else {
        unmap(memory, taken_bytes(bytes));
    }
}

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
    if (bytes <= kMostBytes) memory = checked_ ? checked_->allocate(bytes) : allocate_plain(bytes);
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
        free_plain(handle, bytes);
    }
    in_use_.fetch_sub(footprint(bytes), std::memory_order_relaxed);
}

std::int64_t CpuDevice::footprint(std::int64_t bytes) const {
    return bytes < kMapped ? bytes : taken_bytes(bytes);
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
    if (!to.empty()) std::memmove(at(to), at(from), static_cast<std::size_t>(to.size()));
}

void CpuDevice::zero(DeviceSpan<std::byte> to, Stream&) {
    if (!to.empty()) std::memset(at(to), 0, static_cast<std::size_t>(to.size()));
}

void CpuDevice::synchronize(Stream&) {}

std::byte* CpuDevice::wire_address(std::byte* handle) const {
    return handle == nullptr ? nullptr : at(handle);
}

}  // namespace rankwise::kernels::cpu
