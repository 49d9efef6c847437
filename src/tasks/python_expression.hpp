// The value of an arithmetic expression as Python computes it, without running any code.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace rankwise::tasks {

/// |value - target| where `value` is what Python's eval gives for `expression`: whole numbers of
/// any size, floats with their rounding, + - * / // **, signs, parentheses; true division, `**`
/// before the sign at its left and from right to left, no leading zeros, no more than 200
/// parentheses inside each other. Nothing if Python would raise an error or give something that is
/// no real number (a call, a tuple, a complex number), if there is any other character than digits,
/// + - * / ( ) . and white space, and for whole numbers of more than 65,536 bits, with which Python
/// would take long.
[[nodiscard]] std::optional<double> python_distance(std::string_view expression,
                                                    std::int64_t target);

}  // namespace rankwise::tasks
