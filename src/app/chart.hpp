// Line charts as inline SVG.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rankwise::app {

struct Chart {
    std::string title = {};
    std::string x_name = "step";
    std::vector<std::pair<double, double>> points = {};  ///< x ascending, all finite; at least two
    /// Low and high of each point's interval; or none.
    std::vector<std::pair<double, double>> intervals = {};
    bool markers = false;  ///< each point is one measurement (evaluations): dots, no smoothing
};

/// An <svg> with axes, the points, and a running mean over them if there are many. Its points are
/// also in data attributes, from which the page's script shows values under the pointer.
[[nodiscard]] std::string to_svg(const Chart& chart);

/// At most `most` round values inside [low, high] for axis labels: steps of 1, 2 or 5 times a power
/// of ten.
[[nodiscard]] std::vector<double> round_ticks(double low, double high, int most);

/// `<`, `>`, `&` and quotes as entities.
[[nodiscard]] std::string escape_html(std::string_view text);

}  // namespace rankwise::app
