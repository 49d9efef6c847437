#include "src/stages/interval.hpp"

#include <algorithm>
#include <cmath>

#include "src/base/error.hpp"

namespace rankwise::stages {
namespace {

/// The normal distribution has 95 % of its mass within so many standard deviations.
constexpr double kDeviations = 1.96;

}  // namespace

bool is_bound(std::string_view metric) {
    return metric.ends_with(kLow95) || metric.ends_with(kHigh95);
}

std::optional<Interval> ratio_interval(std::span<const double> values,
                                       std::span<const double> sizes) {
    ensure(values.size() == sizes.size(), "{} values with {} sizes", values.size(), sizes.size());
    double value = 0.0;
    double size = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        value += values[i];
        size += sizes[i];
    }
    if (values.size() < 2 || size <= 0.0) return std::nullopt;
    const double ratio = value / size;
    double squares = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const double off = values[i] - ratio * sizes[i];
        squares += off * off;
    }
    const auto count = static_cast<double>(values.size());
    const double half = kDeviations * std::sqrt(count / (count - 1.0) * squares) / size;
    return Interval{std::max(0.0, ratio - half), ratio + half};
}

std::optional<Interval> share_interval(std::span<const double> values,
                                       std::span<const double> sizes) {
    auto interval = ratio_interval(values, sizes);
    if (!interval) return interval;
    if (interval->low == interval->high && (interval->low == 0.0 || interval->low == 1.0))
        return wilson_interval(interval->low, static_cast<double>(values.size()));
    interval->high = std::min(1.0, interval->high);
    return interval;
}

std::optional<Interval> wilson_interval(double share, double trials) {
    if (trials <= 0.0) return std::nullopt;
    constexpr double kSquare = kDeviations * kDeviations;
    const double scale = 1.0 + kSquare / trials;
    const double middle = (share + kSquare / (2.0 * trials)) / scale;
    const double half =
        kDeviations / scale *
        std::sqrt(share * (1.0 - share) / trials + kSquare / (4.0 * trials * trials));
    return Interval{std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

}  // namespace rankwise::stages
