// Ranks and counts as indices of containers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rankwise::parallel {

[[nodiscard]] constexpr std::size_t index(std::int64_t value) {
    return static_cast<std::size_t>(value);
}

}  // namespace rankwise::parallel
