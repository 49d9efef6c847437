#include "src/base/uint128.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <charconv>

namespace rankwise {

std::string to_hex(UInt128 value) {
    return fmt::format("{:016x}{:016x}", value.high, value.low);
}

std::optional<UInt128> uint128_from_hex(std::string_view text) {
    UInt128 value;
    if (text.size() != 32) return std::nullopt;
    for (std::size_t word = 0; word < 2; ++word) {
        std::uint64_t& part = word == 0 ? value.high : value.low;
        const char* begin = text.data() + word * 16;
        const auto [end, error] = std::from_chars(begin, begin + 16, part, 16);
        if (error != std::errc() || end != begin + 16) return std::nullopt;
    }
    return value;
}

UInt128 xxh3_128(const void* bytes, std::uint64_t size, std::uint64_t seed) {
    const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, size, seed);
    return {hash.low64, hash.high64};
}

}  // namespace rankwise
