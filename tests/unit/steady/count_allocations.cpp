#include "tests/unit/steady/count_allocations.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>

// What glibc's own functions are called underneath: the program's replace them.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
}

namespace rankwise::test {
namespace {

std::atomic<std::int64_t> count{0};

}  // namespace

std::int64_t allocations() {
    return count.load();
}

}  // namespace rankwise::test

extern "C" {

void* malloc(std::size_t size) noexcept {
    ++rankwise::test::count;
    return __libc_malloc(size);
}

void* calloc(std::size_t number, std::size_t size) noexcept {
    ++rankwise::test::count;
    return __libc_calloc(number, size);
}

void* realloc(void* memory, std::size_t size) noexcept {
    ++rankwise::test::count;
    return __libc_realloc(memory, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
    ++rankwise::test::count;
    return __libc_memalign(alignment, size);
}

void* memalign(std::size_t alignment, std::size_t size) noexcept {
    ++rankwise::test::count;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void** memory, std::size_t alignment, std::size_t size) noexcept {
    ++rankwise::test::count;
    *memory = __libc_memalign(alignment, size);
    return *memory == nullptr ? ENOMEM : 0;
}
}
