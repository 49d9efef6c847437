// Memory for reading and writing files without the system's cache.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "io/fs.hpp"
#include "src/base/checked.hpp"

namespace rankwise::io {

/// So many bytes and up to a block more, not cleared, that begin at a multiple of kDirectBlock; on
/// large pages where it fills some: a disk takes few long pieces at once, and each small page would
/// be one.
class DirectBuffer {
  public:
    DirectBuffer() = default;
    explicit DirectBuffer(std::int64_t size)
        : size_(static_cast<std::size_t>(ceil_div(size, kDirectBlock) * kDirectBlock)) {
        constexpr std::size_t kLargePage = std::size_t{2} << 20;
        static_assert(kLargePage % kDirectBlock == 0);
        const bool large = size_ % kLargePage == 0;
        memory_.reset(static_cast<std::byte*>(std::aligned_alloc(
            large ? kLargePage : static_cast<std::size_t>(kDirectBlock), size_)));
        if (!memory_ && size_ > 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        if (large) (void)::madvise(memory_.get(), size_, MADV_HUGEPAGE);  // a wish
#endif
    }

    /// Whole blocks; none of a buffer that was moved elsewhere.
    [[nodiscard]] std::span<std::byte> bytes() const {
        return {memory_.get(), memory_ ? size_ : 0};
    }

  private:
    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };
    std::unique_ptr<std::byte[], Free> memory_;
    std::size_t size_ = 0;
};

}  // namespace rankwise::io
