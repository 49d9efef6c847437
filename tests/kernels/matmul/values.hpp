// Operands for tests of matrix products.
#pragma once

#include <cstdint>
#include <vector>

namespace rankwise::test {

/// Values in (-1, 1) whose products round: sums in another order have other bits.
inline std::vector<float> random_values(std::int64_t size, std::uint64_t seed) {
    std::vector<float> values(static_cast<std::size_t>(size));
    std::uint64_t state = seed * 0x9E3779B97F4A7C15U + 1;
    for (float& value : values) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        value =
            static_cast<float>(static_cast<std::int64_t>(state >> 33U) - (std::int64_t{1} << 30U)) *
            0x1p-30F;
    }
    return values;
}

}  // namespace rankwise::test
