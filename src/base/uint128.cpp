#include "src/base/uint128.hpp"

#include <fmt/format.h>
#include <xxhash.h>

namespace rankwise {

std::string to_hex(UInt128 value) {
    return fmt::format("{:016x}{:016x}", value.high, value.low);
}

UInt128 xxh3_128(const void* bytes, std::uint64_t size, std::uint64_t seed) {
    const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes, size, seed);
    return {hash.low64, hash.high64};
}

}  // namespace rankwise
