// Integer arithmetic that refuses to lose anything.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "src/base/error.hpp"

namespace rankwise {

/// `value` as a To, or InternalError if To cannot hold it.
template <class To, class From>
[[nodiscard]] constexpr To narrow(From value) {
    static_assert(std::is_integral_v<To> && std::is_integral_v<From>);
    if (!std::in_range<To>(value)) throw InternalError(fmt::format("{} does not fit", value));
    return static_cast<To>(value);
}

[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

[[nodiscard]] constexpr std::int64_t round_up(std::int64_t a, std::int64_t multiple) {
    return ceil_div(a, multiple) * multiple;
}

/// a / b where b must divide a.
[[nodiscard]] constexpr std::int64_t div_exact(std::int64_t a, std::int64_t b) {
    if (b == 0 || a % b != 0) throw InternalError(fmt::format("{} does not divide {}", b, a));
    return a / b;
}

/// Where part `index` of `parts` begins when `total` things are split as evenly as whole things
/// allow.
[[nodiscard]] constexpr std::int64_t split_begin(std::int64_t total, std::int64_t parts,
                                                 std::int64_t index) {
    return total * index / parts;
}

/// A half-open range of indices.
struct Range {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    [[nodiscard]] constexpr std::int64_t size() const { return end - begin; }
    [[nodiscard]] constexpr bool empty() const { return end <= begin; }
    [[nodiscard]] constexpr bool contains(std::int64_t i) const { return i >= begin && i < end; }
    friend constexpr bool operator==(const Range&, const Range&) = default;
};

[[nodiscard]] constexpr Range split(std::int64_t total, std::int64_t parts, std::int64_t index) {
    return {split_begin(total, parts, index), split_begin(total, parts, index + 1)};
}

[[nodiscard]] constexpr Range intersect(Range a, Range b) {
    Range r{a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
    if (r.end < r.begin) r.end = r.begin;
    return r;
}

}  // namespace rankwise
