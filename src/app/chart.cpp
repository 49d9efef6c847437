#include "src/app/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "src/app/display.hpp"

namespace rankwise::app {
namespace {

// Sizes in SVG units; the page scales the whole.
constexpr double kChartWidth = 360;
constexpr double kChartHeight = 190;
constexpr double kLeft = 46;
constexpr double kRight = 10;
constexpr double kTop = 30;
constexpr double kBottom = 24;
constexpr std::size_t kMostPoints = 600;

struct Frame {
    double x_low;
    double x_high;
    double y_low;
    double y_high;
    [[nodiscard]] double x(double value) const {
        return kLeft + (value - x_low) / (x_high - x_low) * (kChartWidth - kLeft - kRight);
    }
    [[nodiscard]] double y(double value) const {
        return kChartHeight - kBottom -
               (value - y_low) / (y_high - y_low) * (kChartHeight - kTop - kBottom);
    }
};

Frame frame_of(const Chart& chart) {
    Frame frame{chart.points.front().first, chart.points.back().first, chart.points.front().second,
                chart.points.front().second};
    for (const auto& point : chart.points) {
        frame.y_low = std::min(frame.y_low, point.second);
        frame.y_high = std::max(frame.y_high, point.second);
    }
    for (const auto& [low, high] : chart.intervals) {
        frame.y_low = std::min(frame.y_low, low);
        frame.y_high = std::max(frame.y_high, high);
    }
    // A share looks honest only from 0 on; so does anything that comes near 0.
    if (frame.y_low > 0.0 && frame.y_low < 0.5 * frame.y_high) frame.y_low = 0.0;
    const double span = frame.y_high - frame.y_low;
    const double margin = span > 0.0 ? 0.06 * span : std::max(0.5 * std::abs(frame.y_high), 1e-6);
    frame.y_high += margin;
    if (frame.y_low != 0.0 || span == 0.0) frame.y_low -= margin;
    if (frame.x_high <= frame.x_low) frame.x_high = frame.x_low + 1.0;
    return frame;
}

/// Points next to each other are averaged until there are few enough to draw.
std::vector<std::pair<double, double>> thinned(
    const std::vector<std::pair<double, double>>& points) {
    const std::size_t each = (points.size() + kMostPoints - 1) / kMostPoints;
    if (each <= 1) return points;
    std::vector<std::pair<double, double>> out;
    for (std::size_t begin = 0; begin < points.size(); begin += each) {
        const std::size_t end = std::min(begin + each, points.size());
        double sum = 0.0;
        for (std::size_t i = begin; i < end; ++i) sum += points[i].second;
        out.emplace_back(points[end - 1].first, sum / static_cast<double>(end - begin));
    }
    return out;
}

/// The mean of each point with its neighbours, over about a twentieth of all.
std::vector<std::pair<double, double>> smoothed(
    const std::vector<std::pair<double, double>>& points) {
    const auto reach = static_cast<std::int64_t>(std::max<std::size_t>(1, points.size() / 40));
    const auto count = static_cast<std::int64_t>(points.size());
    std::vector<std::pair<double, double>> out;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t near = std::min({reach, i, count - 1 - i});
        double sum = 0.0;
        for (std::int64_t j = i - near; j <= i + near; ++j) {
            sum += points[static_cast<std::size_t>(j)].second;
        }
        out.emplace_back(points[static_cast<std::size_t>(i)].first,
                         sum / static_cast<double>(2 * near + 1));
    }
    return out;
}

std::string path_of(const std::vector<std::pair<double, double>>& points, const Frame& frame) {
    std::string path;
    for (const auto& [x, y] : points) {
        path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.x(x), frame.y(y));
    }
    return path;
}

/// A tick's label, with as many digits as the distance of ticks needs.
std::string tick_text(double value, double distance) {
    if (std::abs(value) >= 1e6) return fmt::format("{:.3g}M", value / 1e6);
    if (std::abs(value) >= 10000.0) return fmt::format("{:.3g}k", value / 1000.0);
    if (value == 0.0) return "0";
    if (distance < 0.0005) return fmt::format("{:.1e}", value);
    const int digits =
        distance >= 1.0 ? 0 : static_cast<int>(std::ceil(-std::log10(distance) - 1e-9));
    return fmt::format("{:.{}f}", value, digits);
}

std::string axes(const Frame& frame) {
    std::string svg;
    const std::vector<double> ys = round_ticks(frame.y_low, frame.y_high, 5);
    const double y_distance = ys.size() > 1 ? ys[1] - ys[0] : 1.0;
    for (const double value : ys) {
        svg += fmt::format(
            "<path class=\"rule\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>"
            "<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
            kLeft, frame.y(value), kChartWidth - kRight, kLeft - 6, frame.y(value) + 3.5,
            tick_text(value, y_distance));
    }
    const std::vector<double> xs = round_ticks(frame.x_low, frame.x_high, 6);
    for (const double value : xs) {
        const bool at_edge = frame.x(value) > kChartWidth - kRight - 12;
        svg += fmt::format(
            "<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>",
            at_edge ? kChartWidth - 4 : frame.x(value), kChartHeight - 8,
            at_edge ? "end" : "middle", tick_text(value, 1.0));
    }
    return svg;
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int most) {
    std::vector<double> ticks;
    if (!(high > low) || most < 1) return ticks;
    const double rough = (high - low) / most;
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    double distance = 10.0 * power;
    for (const double factor : {1.0, 2.0, 5.0}) {
        if (factor * power >= rough * (1.0 - 1e-9)) {
            distance = factor * power;
            break;
        }
    }
    for (double i = std::ceil(low / distance - 1e-9); i * distance <= high + 1e-9 * distance; ++i) {
        ticks.push_back(i == 0.0 ? 0.0 : i * distance);
    }
    return ticks;
}

std::string escape_html(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (const char c : text) {
        switch (c) {
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '&':
                out += "&amp;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

std::string to_svg(const Chart& chart) {
    const Frame frame = frame_of(chart);
    const std::vector<std::pair<double, double>> points = thinned(chart.points);
    std::string data;  // "x on the chart,y on the chart,x,value" with ';' between points
    std::string dots;
    for (const auto& [x, y] : points) {
        data += fmt::format("{}{:.1f},{:.1f},{:g},{}", data.empty() ? "" : ";", frame.x(x),
                            frame.y(y), x, number_text(y));
        if (chart.markers) {
            dots += fmt::format("<circle class=\"dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>",
                                frame.x(x), frame.y(y));
        }
    }
    std::string svg = fmt::format(
        "<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" "
        "data-points=\"{}\" "
        "data-x=\"{}\">",
        kChartWidth, kChartHeight, escape_html(chart.title), data, chart.x_name);
    svg +=
        fmt::format("<text class=\"title\" x=\"8\" y=\"17\">{}</text>", escape_html(chart.title));
    svg += fmt::format("<text class=\"last\" x=\"{}\" y=\"17\" text-anchor=\"end\">{}</text>",
                       kChartWidth - kRight, number_text(chart.points.back().second));
    svg += axes(frame);
    const bool smooth = !chart.markers && points.size() >= 20;
    if (smooth) {
        svg += fmt::format("<path class=\"raw\" d=\"{}\"/>", path_of(points, frame));
        svg += fmt::format("<path class=\"line\" d=\"{}\"/>", path_of(smoothed(points), frame));
    } else {
        svg += fmt::format("<path class=\"line\" d=\"{}\"/>", path_of(points, frame));
    }
    if (chart.markers) {
        for (std::size_t i = 0; i < chart.intervals.size(); ++i) {
            svg += fmt::format("<path class=\"whisker\" d=\"M{:.1f} {:.1f}V{:.1f}\"/>",
                               frame.x(chart.points[i].first), frame.y(chart.intervals[i].first),
                               frame.y(chart.intervals[i].second));
        }
    }
    svg += dots;
    svg += "<g class=\"pointer\"></g></svg>\n";
    return svg;
}

}  // namespace rankwise::app
