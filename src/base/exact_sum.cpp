#include "src/base/exact_sum.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "src/base/error.hpp"

namespace rankwise {
namespace {

constexpr int kBits = 80;
constexpr int kMantissaBits = 53;

/// value = mantissa * 2^exponent, mantissa < 2^53 (at least 2^52 unless the value is 0).
struct Parts {
    std::uint64_t mantissa;
    int exponent;
};

Parts parts_of(double value) {
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);  // exact
    return {static_cast<std::uint64_t>(std::ldexp(fraction, kMantissaBits)),
            exponent - kMantissaBits};
}

/// value / 2^shift to the nearest, ties to even, 0 < shift < 64.
std::uint64_t shift_right_rounded(std::uint64_t value, int shift) {
    const std::uint64_t whole = value >> shift;
    const std::uint64_t rest = value & ((std::uint64_t{1} << shift) - 1);
    const std::uint64_t half = std::uint64_t{1} << (shift - 1);
    return whole + (rest > half || (rest == half && (whole & 1U) != 0) ? 1U : 0U);
}

}  // namespace

int scale_exponent(double max) {
    if (!(max >= 0.0) || !std::isfinite(max)) {
        throw BadNumbers(fmt::format(
            "an exact sum over numbers up to {}: expected them finite and not negative", max));
    }
    if (max == 0.0) return 0;
    int exponent = 0;
    std::frexp(max, &exponent);
    return kBits - exponent;
}

UInt128 to_fixed(double value, int exponent) {
    if (!(value >= 0.0) || !std::isfinite(value)) {
        throw BadNumbers(fmt::format(
            "an exact sum meets {}: expected its numbers finite and not negative", value));
    }
    if (value == 0.0) return {};
    const Parts parts = parts_of(value);
    const int shift = parts.exponent + exponent;
    if (shift + kMantissaBits > kBits) {
        throw BadNumbers(fmt::format(
            "an exact sum meets {}, larger than the largest that its parts agreed on", value));
    }
    if (shift < 0) {
        return {shift <= -64 ? 0U : shift_right_rounded(parts.mantissa, -shift), 0};
    }
    if (shift == 0) return {parts.mantissa, 0};
    return {parts.mantissa << shift, parts.mantissa >> (64 - shift)};
}

double from_fixed(UInt128 value, int exponent) {
    // The 64 leading bits, the last of them set if anything below is: enough to round once
    // correctly.
    int shift = 0;
    std::uint64_t leading = value.low;
    if (value.high != 0) {
        shift = 64 - std::countl_zero(value.high);
        const std::uint64_t lost = shift == 64 ? value.low : value.low << (64 - shift);
        leading = shift == 64 ? value.high : (value.high << (64 - shift)) | (value.low >> shift);
        if (lost != 0) leading |= 1U;
    }
    if (leading == 0) return 0.0;
    const int drop = 64 - std::countl_zero(leading) - kMantissaBits;
    const std::uint64_t mantissa = drop > 0 ? shift_right_rounded(leading, drop) : leading;
    return std::ldexp(static_cast<double>(mantissa), std::max(drop, 0) + shift - exponent);
}

}  // namespace rankwise
