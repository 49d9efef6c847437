// Sums of doubles that are exact in any order: NUMERICS N8 (gradient norm).
#pragma once

#include <cstdint>

#include "src/base/uint128.hpp"

namespace rankwise {

/// How to add non-negative doubles whose largest is `max` as integers: each is multiplied by
/// 2^scale_exponent(max), which brings the largest into [2^79, 2^80), and rounded (to_fixed). Up to
/// 2^48 of them fit. All who add must agree on the largest first; the sum then depends on nothing
/// but the set of numbers. 0 for max = 0.
/// @throws BadNumbers if max is negative, infinite or NaN.
[[nodiscard]] int scale_exponent(double max);

/// value * 2^exponent to the nearest integer, ties to even. 0 <= value <= the largest.
/// @throws BadNumbers if value is negative, not finite or larger than that.
[[nodiscard]] UInt128 to_fixed(double value, int exponent);

/// value * 2^-exponent, rounded to nearest even; overflow gives infinity. (A result below the
/// normal range is rounded a second time.)
[[nodiscard]] double from_fixed(UInt128 value, int exponent);

}  // namespace rankwise
