// Bytes from one place to another, which may be the same or empty.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>

namespace rankwise::parallel {

inline void copy_bytes(std::span<const std::byte> from, std::span<std::byte> to) {
    if (!from.empty() && from.data() != to.data()) std::memcpy(to.data(), from.data(), from.size());
}

}  // namespace rankwise::parallel
