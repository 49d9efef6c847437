// Reductions of integers, for implementations that do them themselves.
#pragma once

#include <cstdint>

#include "src/base/uint128.hpp"

namespace rankwise::parallel {

/// Modulo 2^64.
[[nodiscard]] constexpr std::int64_t add(std::int64_t a, std::int64_t b) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}
[[nodiscard]] constexpr UInt128 add(UInt128 a, UInt128 b) {
    return a + b;
}

[[nodiscard]] constexpr bool less(std::int64_t a, std::int64_t b) {
    return a < b;
}
[[nodiscard]] constexpr bool less(UInt128 a, UInt128 b) {
    return a.high != b.high ? a.high < b.high : a.low < b.low;
}

/// @param kind  0 sum, 1 minimum, 2 maximum.
template <class T>
[[nodiscard]] constexpr T combine(int kind, T a, T b) {
    if (kind == 0) return add(a, b);
    return less(a, b) == (kind == 1) ? a : b;
}

}  // namespace rankwise::parallel
