#include "kernels/cpu/host_memory.hpp"

#include <sys/mman.h>

#include <cstdlib>

#include "src/base/checked.hpp"

namespace rankwise::kernels::cpu {
namespace {

constexpr std::int64_t kAlignment = 64;
constexpr std::int64_t kPage = 4096;
constexpr std::int64_t kLargePage = std::int64_t{2} << 20;

std::byte* map(std::int64_t size) {
    void* memory = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

void unmap(std::byte* from, std::int64_t size) {
    if (size > 0) ::munmap(from, static_cast<std::size_t>(size));
}

}  // namespace

std::int64_t host_memory_taken(std::int64_t bytes) {
    return round_up(bytes, bytes >= kLargePage     ? kLargePage
                           : bytes >= kMappedBytes ? kPage
                                                   : kAlignment);
}

std::byte* take_host_memory(std::int64_t bytes) {
    if (bytes <= 0) return nullptr;
    const std::int64_t size = host_memory_taken(bytes);
    if (bytes < kMappedBytes) {
        return static_cast<std::byte*>(std::aligned_alloc(static_cast<std::size_t>(kAlignment),
                                                          static_cast<std::size_t>(size)));
    }
    if (bytes < kLargePage) return map(size);
    std::byte* all = map(size + kLargePage);
    if (all == nullptr) return nullptr;
    const auto address = reinterpret_cast<std::uintptr_t>(all);
    const auto before = round_up(static_cast<std::int64_t>(address), kLargePage) -
                        static_cast<std::int64_t>(address);
    std::byte* memory = all + before;
    unmap(all, before);
    unmap(memory + size, kLargePage - before);
    // Advice only: where it is refused everything works with small pages.
    ::madvise(memory, static_cast<std::size_t>(size), MADV_HUGEPAGE);
    return memory;
}

void give_back_host_memory(std::byte* memory, std::int64_t bytes) noexcept {
    if (memory == nullptr) return;
    if (bytes < kMappedBytes) {
        std::free(memory);
    } else {
        unmap(memory, host_memory_taken(bytes));
    }
}

}  // namespace rankwise::kernels::cpu
