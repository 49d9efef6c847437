#include "src/base/maths.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "src/base/error.hpp"

namespace rankwise::maths {
namespace {

// std::fma is exact by its definition, whatever implements it; nothing else of libm is used.

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// ln 2 in two parts, the first with 20 trailing zero bits: n * kLn2High is exact for |n| < 2^20.
constexpr double kLn2High = 0x1.62e42fee00000p-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
// pi / 2 in three parts of full precision: their sum has an error below 2^-160.
constexpr double kHalfPi1 = 0x1.921fb54442d18p+0;
constexpr double kHalfPi2 = 0x1.1a62633145c07p-54;
constexpr double kHalfPi3 = -0x1.f1976b7ed8fbcp-110;

/// Nearest integer, ties to even, of |x| < 2^51, by the rounding of an addition.
double nearest(double x) {
    constexpr double kShift = 0x1.8p52;
    return (x + kShift) - kShift;
}

/// 2^n for n in [-1022, 1023].
double power_of_two(std::int64_t n) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(n + 1023) << 52U);
}

template <std::size_t N>
double polynomial(double x, const std::array<double, N>& ascending) {
    double value = ascending[N - 1];
    for (std::size_t i = N - 1; i-- > 0;) value = std::fma(value, x, ascending[i]);
    return value;
}

/// e^(x + low) for a low part far below x: reduced to r in [-ln2 / 2, ln2 / 2], where the Taylor
/// polynomial of degree 13 is off by less than 2^-57.
double exp_with_low(double x, double low) {
    if (x > 710.0) return kInfinity;
    if (x < -746.0) return 0.0;
    static constexpr std::array<double, 12> kTerms = {
        1.0 / 2,         1.0 / 6,          1.0 / 24,          1.0 / 120,
        1.0 / 720,       1.0 / 5040,       1.0 / 40320.0,     1.0 / 362880.0,
        1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0};
    const double n = nearest(x * kLog2E);
    const double high = std::fma(-n, kLn2High, x);
    const double rest = std::fma(-n, kLn2Low, low);
    const double r = high + rest;
    const double lost = (high - r) + rest;
    const double p = 1.0 + (r + std::fma(r * r, polynomial(r, kTerms), lost));
    const auto exponent = static_cast<std::int64_t>(n);
    if (exponent > 1023) return p * 2.0 * power_of_two(exponent - 1);
    if (exponent >= -1021) return p * power_of_two(exponent);
    return p * power_of_two(exponent + 100) * 0x1p-100;  // one rounding: the first product is exact
}

/// x = 2^exponent * (1 + fraction), 1 + fraction in [sqrt(1/2), sqrt(2)).
struct Split {
    double exponent;
    double fraction;
};

Split split(double x) {
    double exponent = 0.0;
    if (x < std::numeric_limits<double>::min()) {
        x *= 0x1p54;
        exponent = -54.0;
    }
    constexpr std::uint64_t kRootHalf = 0x3FE6A09E667F3BCDU;
    constexpr std::uint64_t kOne = 0x3FF0000000000000U;
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(x) + (kOne - kRootHalf);
    exponent += static_cast<double>(static_cast<std::int64_t>(bits >> 52U) - 1023);
    const auto mantissa = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFU) + kRootHalf);
    return {exponent, mantissa - 1.0};
}

/// An unevaluated sum of two doubles, |low| <= ulp(high) / 2: about 105 bits.
struct Pair {
    double high;
    double low;
};

Pair fast_two_sum(double a, double b) {  // |a| >= |b|
    const double sum = a + b;
    return {sum, b - (sum - a)};
}

Pair two_sum(double a, double b) {
    const double sum = a + b;
    const double shadow = sum - a;
    return {sum, (a - (sum - shadow)) + (b - shadow)};
}

Pair two_product(double a, double b) {
    const double product = a * b;
    return {product, std::fma(a, b, -product)};
}

Pair operator+(Pair a, Pair b) {
    const Pair high = two_sum(a.high, b.high);
    const Pair low = two_sum(a.low, b.low);
    const Pair partial = fast_two_sum(high.high, high.low + low.high);
    return fast_two_sum(partial.high, partial.low + low.low);
}

Pair operator*(Pair a, Pair b) {
    const Pair product = two_product(a.high, b.high);
    return fast_two_sum(product.high, product.low + std::fma(a.high, b.low, a.low * b.high));
}

Pair operator/(Pair a, Pair b) {
    const double first = a.high / b.high;
    const Pair back = Pair{first, 0.0} * b;
    const Pair rest = a + Pair{-back.high, -back.low};
    const double second = rest.high / b.high;
    return fast_two_sum(first, second);
}

/// log x to about 100 bits: 2 atanh(s), s = fraction / (2 + fraction), |s| <= 0.1716, 22 terms of
/// the series.
Pair log_pair(double x) {
    const Split parts = split(x);
    const Pair fraction{parts.fraction, 0.0};
    const Pair s = fraction / two_sum(2.0, parts.fraction);
    const Pair z = s * s;
    Pair sum{0.0, 0.0};
    for (int k = 21; k >= 0; --k) {
        const Pair term = Pair{2.0, 0.0} / Pair{2.0 * k + 1.0, 0.0};
        sum = sum * z + term;
    }
    sum = sum * s;
    constexpr Pair kLn2{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
    return kLn2 * Pair{parts.exponent, 0.0} + sum;
}

/// An angle reduced: x = quadrant * pi / 2 + (high + low), |high| <= pi / 4.
struct Angle {
    std::int64_t quadrant;
    double high;
    double low;
};

Angle reduce(double x) {
    ensure(std::abs(x) <= 0x1p30, "an angle of {} radians: expected at most 2^30 in size", x);
    const double n = nearest(x * kTwoOverPi);
    // The first difference is exact: both terms are multiples of 2^-52 (of ulp(x) for |x| < 1) and
    // it is below 1.
    const double first = std::fma(-n, kHalfPi1, x);
    const Pair second = two_product(-n, kHalfPi2);
    const Pair sum = two_sum(first, second.high);
    const Pair r = fast_two_sum(sum.high, sum.low + std::fma(-n, kHalfPi3, second.low));
    return {static_cast<std::int64_t>(n), r.high, r.low};
}

/// sin(high + low) on [-pi/4, pi/4]; Taylor to degree 19: off by less than 2^-60.
double sin_near_zero(double high, double low) {
    static constexpr std::array<double, 9> kTerms = {-1.0 / 6,
                                                     1.0 / 120,
                                                     -1.0 / 5040,
                                                     1.0 / 362880.0,
                                                     -1.0 / 39916800.0,
                                                     1.0 / 6227020800.0,
                                                     -1.0 / 1307674368000.0,
                                                     1.0 / 355687428096000.0,
                                                     -1.0 / 121645100408832000.0};
    const double z = high * high;
    const double cubic = z * high * polynomial(z, kTerms);
    return high + (cubic + std::fma(-0.5 * z, low, low));
}

/// cos(high + low) on [-pi/4, pi/4]; Taylor to degree 20.
double cos_near_zero(double high, double low) {
    static constexpr std::array<double, 9> kTerms = {1.0 / 24,
                                                     -1.0 / 720,
                                                     1.0 / 40320.0,
                                                     -1.0 / 3628800.0,
                                                     1.0 / 479001600.0,
                                                     -1.0 / 87178291200.0,
                                                     1.0 / 20922789888000.0,
                                                     -1.0 / 6402373705728000.0,
                                                     1.0 / 2432902008176640000.0};
    const double z = high * high;
    const double half = 0.5 * z;
    const double head = 1.0 - half;
    const double lost = (1.0 - head) - half;
    return head + (lost + std::fma(z * z, polynomial(z, kTerms), -high * low));
}

}  // namespace

double exp(double x) {
    if (x != x) return x;
    return exp_with_low(x, 0.0);
}

double log(double x) {
    if (x != x || x < 0.0) return kNan;
    if (x == 0.0) return -kInfinity;
    if (x == kInfinity) return x;
    // log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + R)), s = f / (2 + f), R = 2/3 s^2 + 2/5 s^4 + …: the
    // large part, f, is exact.
    static constexpr std::array<double, 11> kTerms = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,
                                                      2.0 / 11, 2.0 / 13, 2.0 / 15, 2.0 / 17,
                                                      2.0 / 19, 2.0 / 21, 2.0 / 23};
    const Split parts = split(x);
    const double f = parts.fraction;
    const double s = f / (2.0 + f);
    const double z = s * s;
    const double half_square = 0.5 * f * f;
    const double series = z * polynomial(z, kTerms);
    const double correction =
        half_square - std::fma(s, half_square + series, parts.exponent * kLn2Low);
    return std::fma(parts.exponent, kLn2High, f - correction);
}

double sin(double x) {
    const Angle angle = reduce(x);
    const double value = (angle.quadrant & 1) != 0 ? cos_near_zero(angle.high, angle.low)
                                                   : sin_near_zero(angle.high, angle.low);
    return (angle.quadrant & 2) != 0 ? -value : value;
}

double cos(double x) {
    const Angle angle = reduce(x);
    const double value = (angle.quadrant & 1) != 0 ? sin_near_zero(angle.high, angle.low)
                                                   : cos_near_zero(angle.high, angle.low);
    return ((angle.quadrant + 1) & 2) != 0 ? -value : value;
}

double pow(double x, double y) {
    const bool possible = x > 0.0 || (x == 0.0 && y > 0.0) || y == 0.0;
    ensure(possible && std::abs(x) < kInfinity && std::abs(y) < kInfinity,
           "pow({}, {}): expected a positive base and finite numbers", x, y);
    if (y == 0.0) return 1.0;
    if (x == 0.0) return 0.0;
    const Pair exponent = log_pair(x) * Pair{y, 0.0};
    if (!(std::abs(exponent.high) < 1000.0)) return exponent.high > 0.0 ? kInfinity : 0.0;
    return exp_with_low(exponent.high, exponent.low);
}

}  // namespace rankwise::maths
