// Progress as lines of text, for files and pipes.
#pragma once

#include <cstdio>
#include <memory>

#include "src/app/display.hpp"
#include "src/app/rate.hpp"

namespace rankwise::app {

/// A line for the first step of a stage, then one every two seconds at most, and one for the last
/// step; samples at most one in thirty seconds.
class LinesDisplay final : public Display {
  public:
    LinesDisplay(std::FILE* out, std::shared_ptr<const Clock> clock);
    void begin_stage(const StepView& first) override;
    void step(const StepView& view) override;
    void activity(std::string_view what) override;
    void note(std::string_view text) override;
    void finish() override;

  private:
    void print(std::string_view line);

    std::FILE* out_;
    std::shared_ptr<const Clock> clock_;
    Rate rate_;
    double printed_s_;
    double sample_s_;
};

}  // namespace rankwise::app
