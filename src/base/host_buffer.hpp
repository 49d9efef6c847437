// Host memory that is written whole before it is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace rankwise {

/// So many bytes, not cleared: a copy of gigabytes touches its memory once. Moving it moves no
/// byte.
class HostBuffer {
  public:
    HostBuffer() = default;
    explicit HostBuffer(std::int64_t bytes)
        : memory_(std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(bytes))),
          size_(static_cast<std::size_t>(bytes)) {}

    [[nodiscard]] std::span<std::byte> bytes() const { return {memory_.get(), size_}; }

  private:
    std::unique_ptr<std::byte[]> memory_;
    std::size_t size_ = 0;
};

}  // namespace rankwise
