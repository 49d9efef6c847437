// Bytes from one place to another that may be empty.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>

namespace rankwise::parallel {

inline void copy_bytes(std::span<const std::byte> from, std::span<std::byte> to) {
    if (!from.empty()) std::memcpy(to.data(), from.data(), from.size());
}

}  // namespace rankwise::parallel
