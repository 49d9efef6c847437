#include "src/app/chain_chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "src/app/chart.hpp"
#include "src/app/display.hpp"
#include "src/app/evaluations.hpp"
#include "src/app/terminal_text.hpp"

namespace rankwise::app {
namespace {

// Sizes in SVG units, of which the page shows one as a pixel where it is wide enough.
constexpr double kRowWidth = 1146;
constexpr std::size_t kMostColumns = 6;
constexpr double kGap = 32;
constexpr double kBoxHeight = 124;
constexpr double kMostBoxWidth = 264;
constexpr double kLane = 13;    // distance of arrows that run beside each other
constexpr double kMargin = 12;  // between lanes and boxes
constexpr double kPort = 15;    // distance of arrows that meet at a box
constexpr double kAside = 4;    // what leaves below stands beside what arrives in the next row

struct Arrow {
    std::size_t from = 0;
    std::size_t to = 0;
    bool data = false;
    bool straight = false;
    double out_x = 0.0;      // where it leaves, if not straight
    double in_x = 0.0;       // where it arrives
    std::size_t lane = 0;    // in the space above the row of `to`
    std::size_t lane_1 = 0;  // in the space below the row of `from`, if that is another one
    double channel = 0.0;    // x at which it passes the rows between
};

/// Places for boxes and arrows. Space r is above row r.
class ChainLayout {
  public:
    explicit ChainLayout(std::span<const ChainStage> chain)
        : chain_(chain),
          rows_((chain.size() + kMostColumns - 1) / kMostColumns),
          columns_((chain.size() + rows_ - 1) / rows_),
          box_width_(
              std::min(kMostBoxWidth, (kRowWidth - kGap * static_cast<double>(columns_ - 1)) /
                                          static_cast<double>(columns_))),
          lanes_(rows_) {
        collect();
        give_ports();
        give_lanes();
        double y = 0.0;
        for (std::size_t row = 0; row < rows_; ++row) {
            const auto lanes = static_cast<double>(lanes_[row].size());
            y += lanes > 0.0 ? kLane * lanes + 2.0 * kMargin : (row == 0 ? 2.0 : kGap);
            top_.push_back(y);
            y += kBoxHeight;
        }
        height_ = y + 2.0;
    }

    [[nodiscard]] std::size_t row(std::size_t stage) const { return stage / columns_; }
    [[nodiscard]] double left(std::size_t stage) const {
        return 1.0 + static_cast<double>(stage % columns_) * (box_width_ + kGap);
    }
    [[nodiscard]] double top(std::size_t stage) const { return top_[row(stage)]; }
    [[nodiscard]] double box_width() const { return box_width_ - 2.0; }
    [[nodiscard]] double height() const { return height_; }
    [[nodiscard]] const std::vector<Arrow>& arrows() const { return arrows_; }

    [[nodiscard]] std::string path(const Arrow& arrow) const {
        const double y_in = top(arrow.to);
        if (arrow.straight) {
            const double y = top(arrow.from) + kBoxHeight / 2.0 + (arrow.data ? 12.0 : -12.0);
            return fmt::format("M{:.1f} {:.1f}H{:.1f}", left(arrow.from) + box_width(), y,
                               left(arrow.to) - 3.0);
        }
        const double lane = lane_y(row(arrow.to), arrow.lane);
        if (row(arrow.from) == row(arrow.to)) {
            return rounded({{arrow.out_x, y_in},
                            {arrow.out_x, lane},
                            {arrow.in_x, lane},
                            {arrow.in_x, y_in - 3.0}});
        }
        const double y_out = top(arrow.from) + kBoxHeight;
        if (row(arrow.from) + 1 == row(arrow.to)) {
            return rounded({{arrow.out_x, y_out},
                            {arrow.out_x, lane},
                            {arrow.in_x, lane},
                            {arrow.in_x, y_in - 3.0}});
        }
        const double first = lane_y(row(arrow.from) + 1, arrow.lane_1);
        return rounded({{arrow.out_x, y_out},
                        {arrow.out_x, first},
                        {arrow.channel, first},
                        {arrow.channel, lane},
                        {arrow.in_x, lane},
                        {arrow.in_x, y_in - 3.0}});
    }

  private:
    using Point = std::pair<double, double>;

    void collect() {
        for (std::size_t i = 0; i < chain_.size(); ++i) {
            if (chain_[i].from) add(*chain_[i].from, i, false);
            if (chain_[i].data) add(*chain_[i].data, i, true);
        }
    }
    void add(std::size_t from, std::size_t to, bool data) {
        arrows_.push_back({.from = from,
                           .to = to,
                           .data = data,
                           .straight = from + 1 == to && row(from) == row(to)});
    }

    // Arrows that meet at a side of a box are spread over it, in the order of where they go.
    void give_ports() {
        const auto spread = [&](std::vector<std::pair<double, double*>>& ports, double middle) {
            std::stable_sort(ports.begin(), ports.end(),
                             [](const auto& a, const auto& b) { return a.first < b.first; });
            for (std::size_t i = 0; i < ports.size(); ++i) {
                *ports[i].second = middle + kPort * (static_cast<double>(i) -
                                                     static_cast<double>(ports.size() - 1) / 2.0);
            }
        };
        for (std::size_t stage = 0; stage < chain_.size(); ++stage) {
            std::vector<std::pair<double, double*>> above;
            std::vector<std::pair<double, double*>> below;
            for (Arrow& arrow : arrows_) {
                if (arrow.straight) continue;
                const bool same_row = row(arrow.from) == row(arrow.to);
                if (arrow.to == stage) above.emplace_back(left(arrow.from), &arrow.in_x);
                if (arrow.from == stage)
                    (same_row ? above : below).emplace_back(left(arrow.to), &arrow.out_x);
            }
            const double middle = left(stage) + box_width() / 2.0;
            spread(above, middle);
            spread(below, middle + kAside);
        }
    }

    // Shorter ones first, so that they lie nearer to the boxes.
    void give_lanes() {
        std::vector<Arrow*> order;
        for (Arrow& arrow : arrows_) {
            if (!arrow.straight) order.push_back(&arrow);
        }
        std::stable_sort(order.begin(), order.end(), [](const Arrow* a, const Arrow* b) {
            return a->to - a->from < b->to - b->from;
        });
        std::size_t channels = 0;
        for (Arrow* arrow : order) {
            const std::size_t from = row(arrow->from);
            const std::size_t to = row(arrow->to);
            double begin = arrow->out_x;
            if (to > from + 1) {
                // Through the gap between columns that is nearest to where it leaves.
                const double column =
                    std::round((arrow->out_x - box_width_ - kGap / 2.0) / (box_width_ + kGap));
                const double gap = std::clamp(column, 0.0, static_cast<double>(columns_) - 2.0);
                const auto aside = static_cast<double>(channels++ % 3) - 1.0;
                arrow->channel = (gap + 1.0) * (box_width_ + kGap) - kGap / 2.0 + 8.0 * aside;
                arrow->lane_1 = free_lane(from + 1, arrow->out_x, arrow->channel);
                begin = arrow->channel;
            }
            arrow->lane = free_lane(to, begin, arrow->in_x);
        }
    }
    std::size_t free_lane(std::size_t space, double x, double other_x) {
        const Point span{std::min(x, other_x) - 8.0, std::max(x, other_x) + 8.0};
        auto& lanes = lanes_[space];
        std::size_t lane = 0;
        for (; lane < lanes.size(); ++lane) {
            const bool taken = std::any_of(lanes[lane].begin(), lanes[lane].end(), [&](Point one) {
                return one.first < span.second && span.first < one.second;
            });
            if (!taken) break;
        }
        if (lane == lanes.size()) lanes.emplace_back();
        lanes[lane].push_back(span);
        return lane;
    }
    [[nodiscard]] double lane_y(std::size_t space, std::size_t lane) const {
        return top_[space] - kMargin - kLane * (static_cast<double>(lane) + 0.5);
    }

    // A line through points, with rounded corners.
    static std::string rounded(const std::vector<Point>& points) {
        std::string path =
            fmt::format("M{:.1f} {:.1f}", points.front().first, points.front().second);
        for (std::size_t i = 1; i + 1 < points.size(); ++i) {
            const auto [x, y] = points[i];
            const auto toward = [&](Point other) {
                const double dx = other.first - x;
                const double dy = other.second - y;
                const double length = std::max(std::hypot(dx, dy), 1e-9);
                const double radius = std::min(6.0, length / 2.0);
                return Point{x + dx / length * radius, y + dy / length * radius};
            };
            const auto [x1, y1] = toward(points[i - 1]);
            const auto [x2, y2] = toward(points[i + 1]);
            path += fmt::format("L{:.1f} {:.1f}Q{:.1f} {:.1f} {:.1f} {:.1f}", x1, y1, x, y, x2, y2);
        }
        return path + fmt::format("L{:.1f} {:.1f}", points.back().first, points.back().second);
    }

    std::span<const ChainStage> chain_;
    std::size_t rows_;
    std::size_t columns_;
    double box_width_;
    std::vector<std::vector<std::vector<Point>>> lanes_;  // [space][lane]: spans taken
    std::vector<Arrow> arrows_;
    std::vector<double> top_;
    double height_ = 0.0;
};

/// The metric that a stage's small curve shows.
std::string_view curve_of(std::string_view kind) {
    return kind == "sft" ? "loss" : "reward";
}

std::string facts_text(const ChainStage& stage, std::span<const MetricRecord> metrics) {
    std::int64_t steps = 0;
    const MetricRecord* last = nullptr;
    for (const MetricRecord& record : metrics) {
        if (record.stage != stage.name || record.evaluation) continue;
        steps = record.step;
        last = &record;
    }
    const double* kept = last == nullptr ? nullptr : last->number("kept");
    if (kept != nullptr) return fmt::format("{} kept", number_text(*kept));
    if (stage.kind == "evaluate") return steps > 0 ? "measured" : "to come";
    if (steps == 0) return "to come";
    return fmt::format("{} step{}", number_text(static_cast<double>(steps)), steps == 1 ? "" : "s");
}

/// The stage's curve inside [x, x + width] × [y, y + height], with its first and last value.
std::string small_curve(const ChainStage& stage, std::span<const MetricRecord> metrics, double x,
                        double y, double width, double height) {
    std::vector<double> values;
    for (const MetricRecord& record : metrics) {
        if (record.stage != stage.name || record.evaluation) continue;
        const double* value = record.number(curve_of(stage.kind));
        if (value != nullptr && std::isfinite(*value)) values.push_back(*value);
    }
    if (values.empty()) return {};
    if (values.size() == 1) {
        return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{} {}</text>", x, y + height + 14.0,
                           curve_of(stage.kind), number_text(values.front()));
    }
    // Means of neighbours, as many as there are points to draw.
    const std::size_t points = std::min<std::size_t>(values.size(), 48);
    std::vector<double> means;
    for (std::size_t i = 0; i < points; ++i) {
        const std::size_t begin = i * values.size() / points;
        const std::size_t end = (i + 1) * values.size() / points;
        double sum = 0.0;
        for (std::size_t j = begin; j < end; ++j) sum += values[j];
        means.push_back(sum / static_cast<double>(end - begin));
    }
    const auto [low, high] = std::minmax_element(means.begin(), means.end());
    const double span = *high > *low ? *high - *low : 1.0;
    std::string path;
    for (std::size_t i = 0; i < points; ++i) {
        path += fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : "L",
                            x + width * static_cast<double>(i) / static_cast<double>(points - 1),
                            y + height * (1.0 - (means[i] - *low) / span));
    }
    return fmt::format(
        "<path class=\"spark\" d=\"{}\"/><text x=\"{:.1f}\" y=\"{:.1f}\">{} {} → {}</text>", path,
        x, y + height + 14.0, curve_of(stage.kind), number_text(means.front()),
        number_text(means.back()));
}

/// The stage's last evaluation; null if there is none.
const MetricRecord* evaluation_of(const ChainStage& stage, std::span<const MetricRecord> metrics) {
    for (const MetricRecord* evaluation : last_evaluations(metrics)) {
        if (evaluation->stage == stage.name) return evaluation;
    }
    return nullptr;
}

/// What stands where a stage without a curve would have it.
std::string short_facts(const MetricRecord& evaluation, double x, double y) {
    std::string svg;
    for (const std::string_view metric :
         {"eval/format_of_finished", "eval/completions/mean_length", "eval/cut_off"}) {
        const auto measure = std::find_if(measures().begin(), measures().end(),
                                          [&](const Measure& one) { return one.metric == metric; });
        const auto found = measured(evaluation, *measure);
        if (!found) continue;
        svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{} {}</text>", x, y, measure->title,
                           value_text(found->value, *measure));
        y += 15.0;
    }
    return svg;
}

/// Pixels that a name takes in the wide bold letters that browsers fall back to, about.
double bold_width(std::string_view name) {
    double width = 0.0;
    for (const char letter : name) {
        constexpr std::string_view kThin = "ijlft1._-";
        width += kThin.find(letter) != std::string_view::npos ? 5.5
                 : letter == 'm' || letter == 'w'             ? 13.5
                                                              : 9.5;
    }
    return width;
}

std::string box_svg(const ChainLayout& layout, std::span<const ChainStage> chain, std::size_t i,
                    std::span<const MetricRecord> metrics) {
    const ChainStage& stage = chain[i];
    const double x = layout.left(i);
    const double y = layout.top(i);
    const double width = layout.box_width();
    std::string svg = fmt::format(
        "<a href=\"#stage-{0}\" class=\"m{1}\"><title>{0}: {2}{3}</title>"
        "<rect class=\"box\" x=\"{4:.1f}\" y=\"{5:.1f}\" width=\"{6:.1f}\" height=\"{7}\" "
        "rx=\"8\"/><path class=\"edge\" d=\"M{8:.1f} {9:.1f}v{10}\"/>",
        escape_html(stage.name), model_place(chain, stage.model), escape_html(stage.model),
        stage.shape.empty() ? "" : " (" + escape_html(stage.shape) + ")", x, y, width, kBoxHeight,
        x + 1.5, y + 9.0, kBoxHeight - 18.0);
    const MetricRecord* evaluation = evaluation_of(stage, metrics);
    const double* share = evaluation == nullptr ? nullptr : evaluation->number("eval/pass@1");
    const std::string right = share == nullptr ? "" : fmt::format("{:.1f} %", 100.0 * *share);
    // A long name is drawn narrower rather than over its neighbour: how wide letters are depends on
    // the reader's fonts.
    const double room = width - 24.0 - (right.empty() ? 0.0 : 56.0);
    const std::string name = cut_text(stage.name, static_cast<std::size_t>(room / 6.0));
    const bool narrow = bold_width(name) > room;
    svg += fmt::format(
        "<text class=\"name\" x=\"{:.1f}\" y=\"{:.1f}\"{}>{}</text>", x + 13, y + 22,
        narrow ? fmt::format(" textLength=\"{:.1f}\" lengthAdjust=\"spacingAndGlyphs\"", room) : "",
        escape_html(name));
    if (!right.empty()) {
        svg += fmt::format(
            "<text class=\"right\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
            x + width - 10, y + 22, right);
    }
    std::string facts = stage.kind;
    facts += (facts.empty() ? "" : " · ") + facts_text(stage, metrics);
    const auto fits = static_cast<std::size_t>((width - 20.0) / 5.6);
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", x + 13, y + 40,
                       escape_html(cut_text(facts, fits)));
    std::string model = stage.model;
    if (!stage.from && !stage.start.empty()) model += " · from " + stage.start;
    svg += fmt::format("<text class=\"model\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", x + 13, y + 56,
                       escape_html(cut_text(model, fits)));
    const std::string curve = small_curve(stage, metrics, x + 13, y + 66, width - 26, 30);
    svg +=
        curve.empty() && evaluation != nullptr ? short_facts(*evaluation, x + 13, y + 76) : curve;
    return svg + "</a>\n";
}

}  // namespace

std::size_t model_place(std::span<const ChainStage> chain, std::string_view model) {
    std::vector<std::string_view> models;
    for (const ChainStage& stage : chain) {
        if (std::find(models.begin(), models.end(), stage.model) == models.end())
            models.emplace_back(stage.model);
    }
    return static_cast<std::size_t>(std::find(models.begin(), models.end(), model) -
                                    models.begin());
}

std::string chain_svg(std::span<const ChainStage> chain, std::span<const MetricRecord> metrics) {
    if (chain.empty()) return {};
    const ChainLayout layout(chain);
    std::string svg = fmt::format(
        "<svg class=\"chain\" viewBox=\"0 0 {} {:.0f}\" role=\"img\" aria-label=\"the chain of "
        "stages\"><defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"6\" refY=\"4\" "
        "markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path class=\"tip\" "
        "d=\"M0 0.5L7 4L0 7.5z\"/></marker><marker id=\"data-tip\" viewBox=\"0 0 8 8\" "
        "refX=\"6\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path "
        "class=\"tip data\" d=\"M0 0.5L7 4L0 7.5z\"/></marker></defs>\n",
        kRowWidth, layout.height());
    for (const Arrow& arrow : layout.arrows()) {
        svg +=
            fmt::format("<path class=\"arrow{}\" marker-end=\"url(#{}tip)\" d=\"{}\"/>\n",
                        arrow.data ? " data" : "", arrow.data ? "data-" : "", layout.path(arrow));
    }
    for (std::size_t i = 0; i < chain.size(); ++i) svg += box_svg(layout, chain, i, metrics);
    return svg + "</svg>\n";
}

}  // namespace rankwise::app
