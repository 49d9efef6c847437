// 128-bit integers: sums that are exact in any order (digests, gradient norms).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace rankwise {

/// An unsigned integer modulo 2^128, in two words so that it can be stored and sent.
struct UInt128 {
    std::uint64_t low = 0;
    std::uint64_t high = 0;

    constexpr UInt128& operator+=(UInt128 other) {
        low += other.low;
        high += other.high + (low < other.low ? 1U : 0U);
        return *this;
    }
    friend constexpr UInt128 operator+(UInt128 a, UInt128 b) { return a += b; }
    friend constexpr bool operator==(UInt128, UInt128) = default;
};

/// 32 hexadecimal digits, most significant first.
[[nodiscard]] std::string to_hex(UInt128 value);
/// The value of exactly 32 hexadecimal digits; nothing for any other text.
[[nodiscard]] std::optional<UInt128> uint128_from_hex(std::string_view text);

/// The XXH3 128-bit hash of some bytes.
[[nodiscard]] UInt128 xxh3_128(const void* bytes, std::uint64_t size, std::uint64_t seed = 0);

}  // namespace rankwise
