// 95 % intervals of what an evaluation measures, over the problems that were drawn.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace rankwise::stages {

/// Behind a metric's name: the ends of its interval.
inline constexpr const char* kLow95 = "/ci95_low";
inline constexpr const char* kHigh95 = "/ci95_high";

/// Whether a metric is an end of another one's interval.
[[nodiscard]] bool is_bound(std::string_view metric);

struct Interval {
    double low = 0.0;
    double high = 0.0;
};

/// Of r = sum(values) / sum(sizes), an entry a problem: answers to one problem depend on each
/// other, so that problems are what is counted. r ± 1.96 s with s = sqrt(n / (n - 1) sum((value - r
/// size)^2)) / sum(sizes), the ratio estimator over clusters (Cochran 1977, Sampling Techniques,
/// 6.3). With equal sizes it is the mean of the problems' means with its standard error. Sums are
/// in the given order (NUMERICS N8). Not below 0: everything measured is a count or a share.
/// @return nothing for fewer than two problems, or if the sizes sum to 0
[[nodiscard]] std::optional<Interval> ratio_interval(std::span<const double> values,
                                                     std::span<const double> sizes);

/// ratio_interval() of a share, not above 1. Where every problem has 0, or every one 1, that would
/// have no width; then wilson_interval() with a problem a trial.
[[nodiscard]] std::optional<Interval> share_interval(std::span<const double> values,
                                                     std::span<const double> sizes);

/// Of a share of `trials` (Wilson 1927): never empty, and has width at 0 and at 1 too.
/// @return nothing without trials
[[nodiscard]] std::optional<Interval> wilson_interval(double share, double trials);

}  // namespace rankwise::stages
