#include "kernels/cpu/checked_heap.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>

#include "src/base/checked.hpp"
#include "src/base/unique_handle.hpp"

namespace rankwise::kernels::cpu {
namespace {

constexpr std::int64_t kReserved = std::int64_t{1} << 36;  // 64 GiB of addresses
constexpr std::int64_t kAlignment = 64;
constexpr std::int64_t kPage = 4096;

using File = UniqueHandle<int, &::close, -1>;

std::byte* map(const File& file, int protection) {
    void* address =
        ::mmap(nullptr, kReserved, protection, MAP_SHARED | MAP_NORESERVE, file.get(), 0);
    if (address == MAP_FAILED) {
        throw EnvironmentError(fmt::format(
            "the checked device cannot reserve {} GiB of addresses ({}): raise the limit "
            "on address space (ulimit -v)",
            kReserved >> 30U, std::strerror(errno)));
    }
    return static_cast<std::byte*>(address);
}

}  // namespace

CheckedHeap::CheckedHeap() {
    const File file(::memfd_create("rankwise-checked", MFD_CLOEXEC));
    if (!file || ::ftruncate(file.get(), kReserved) != 0) {
        throw EnvironmentError(
            fmt::format("the checked device cannot make a memory file of {} GiB: {}",
                        kReserved >> 30U, std::strerror(errno)));
    }
    handles_ = map(file, PROT_NONE);
    try {
        readable_ = map(file, PROT_READ | PROT_WRITE);
    } catch (...) {
        ::munmap(handles_, kReserved);
        throw;
    }
    holes_.emplace(0, kReserved);
}

CheckedHeap::~CheckedHeap() {
    ::munmap(handles_, kReserved);
    ::munmap(readable_, kReserved);
}

std::byte* CheckedHeap::allocate(std::int64_t bytes) {
    const std::int64_t size = round_up(bytes, kAlignment);
    const std::lock_guard lock(mutex_);
    for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
        const auto [offset, room] = *hole;
        if (room < size) continue;
        holes_.erase(hole);
        if (room > size) holes_.emplace(offset + size, room - size);
        std::memset(readable_ + offset, 0xFF, static_cast<std::size_t>(size));
        return handles_ + offset;
    }
    return nullptr;
}

void CheckedHeap::free(std::byte* handle, std::int64_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    std::int64_t begin = handle - handles_;
    std::int64_t end = begin + round_up(bytes, kAlignment);
    // Whole pages go back to the system.
    const std::int64_t page = round_up(begin, kPage);
    if (end - page >= kPage) {
        ::madvise(readable_ + page, static_cast<std::size_t>((end - page) / kPage * kPage),
                  MADV_REMOVE);
    }
    auto next = holes_.lower_bound(begin);
    if (next != holes_.end() && next->first == end) {
        end += next->second;
        next = holes_.erase(next);
    }
    if (next != holes_.begin()) {
        const auto before = std::prev(next);
        if (before->first + before->second == begin) {
            begin = before->first;
            holes_.erase(before);
        }
    }
    holes_.emplace(begin, end - begin);
}

}  // namespace rankwise::kernels::cpu
