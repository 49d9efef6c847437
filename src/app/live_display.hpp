// Progress that is redrawn in place at the bottom of a terminal.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "src/app/display.hpp"
#include "src/app/rate.hpp"

namespace rankwise::app {

/// Where a live display draws; tests bring their own.
struct Terminal {
    std::function<void(std::string_view bytes)> write;
    /// Columns and rows at this moment.
    std::function<std::pair<std::size_t, std::size_t>()> size;
};
[[nodiscard]] Terminal terminal_of(std::FILE* out);

/// A few lines: stage and what it does, a bar with the time left, a curve of the first metric, the
/// metrics, and now and then an answer. Each redraw is one write that goes over the lines in place,
/// so nothing flickers; lines are cut to the terminal's width of that moment, and rows that a
/// narrower terminal has wrapped meanwhile are counted.
class LiveDisplay final : public Display {
  public:
    LiveDisplay(Terminal terminal, std::shared_ptr<const Clock> clock, Look look);
    void begin_stage(const StepView& first) override;
    void step(const StepView& view) override;
    void activity(std::string_view what) override;
    void note(std::string_view text) override;
    void finish() override;

  private:
    /// A line, and its columns without the bytes that only colour it.
    struct Line {
        std::string text;
        std::size_t columns = 0;
    };
    void draw();
    [[nodiscard]] std::string to_top() const;
    [[nodiscard]] std::vector<Line> lines(std::size_t columns, std::size_t rows) const;
    [[nodiscard]] Line title(std::size_t columns) const;
    [[nodiscard]] Line bar(std::size_t columns) const;
    [[nodiscard]] Line curve(std::size_t columns) const;
    void add_metrics(std::size_t columns, std::vector<Line>& lines) const;
    void add_sample(std::size_t columns, std::size_t rows, std::vector<Line>& lines) const;
    void append(Line& line, std::size_t columns, std::string_view text,
                std::string_view style = {}) const;

    Terminal terminal_;
    std::shared_ptr<const Clock> clock_;
    Look look_;
    Rate rate_;
    StepView view_;
    std::optional<SampleView> sample_;
    std::int64_t sample_step_ = 0;
    std::string activity_;
    std::vector<double> history_;  ///< of the first metric, a value a step
    double start_s_ = 0.0;
    double drawn_s_ = 0.0;
    double sample_s_ = 0.0;
    std::vector<std::size_t> drawn_;  ///< columns of each line on the screen
};

}  // namespace rankwise::app
