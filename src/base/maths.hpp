// Elementary functions of double for host code: rope tables, schedules, losses, log-sum-exp.
// NUMERICS N9.
#pragma once

namespace rankwise::maths {

/// Built from correctly rounded operations alone (+ - * / fma), so that a value never depends on
/// the machine's libm, its version or its processor. Errors, in units of the last place of the
/// exact result, as the tests measure them against long double: exp, log, sin, cos, pow < 1.

/// e^x. Overflows to infinity, underflows gradually to 0; exp(-inf) = 0; NaN stays NaN.
[[nodiscard]] double exp(double x);

/// Natural logarithm. log(0) = -inf, log(inf) = inf; NaN for a negative number or NaN.
[[nodiscard]] double log(double x);

/// Sine and cosine of an angle in radians.
/// @throws InternalError unless |x| <= 2^30 (what the reduction by pi / 2 is exact for).
[[nodiscard]] double sin(double x);
[[nodiscard]] double cos(double x);

/// x^y for x > 0, and 0^y for y > 0; pow(x, 0) = 1.
/// @throws InternalError for any other arguments, or one that is not finite.
[[nodiscard]] double pow(double x, double y);

}  // namespace rankwise::maths
