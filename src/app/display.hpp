// What a person sees of a run.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/base/clock.hpp"

namespace rankwise::app {

/// One problem and one answer to it.
struct SampleView {
    std::string prompt = {};
    std::string answer = {};
    double reward = 0.0;
};

/// A step that was done.
struct StepView {
    std::string stage = {};        ///< name, e.g. "zero"
    std::string kind = {};         ///< "sft", "grpo", "evaluate"
    std::int64_t stage_index = 0;  ///< 0 for the first stage of the run
    std::int64_t stages = 1;
    std::int64_t step = 0;   ///< steps of this stage that are done
    std::int64_t steps = 0;  ///< steps of this stage in all
    /// Names as in metrics.jsonl, in the order in which they are to be shown.
    std::vector<std::pair<std::string, double>> metrics = {};
    std::optional<SampleView> sample = {};
};

/// Rank 0 has one that prints; other ranks one that does nothing.
class Display {
  public:
    virtual ~Display() = default;
    /// A stage begins (or goes on, at first.step).
    virtual void begin_stage(const StepView& first) = 0;
    /// Called after every step; prints as often as a reader can follow.
    virtual void step(const StepView& view) = 0;
    /// What the run does between steps: "evaluating", "saving step 120". Empty: nothing special.
    virtual void activity(std::string_view what) = 0;
    /// Lines that stay: results, warnings. May hold several lines.
    virtual void note(std::string_view text) = 0;
    /// The run is over; what was live is left on the screen as it stands.
    virtual void finish() = 0;
};

enum class DisplayKind : std::uint8_t { live, lines, off };

/// What `[run] display` ("auto", "live", "lines", "off") means for this output: auto is live if
/// `out` is a terminal that can move the cursor (TERM is set and not dumb), and, under mpirun, so
/// is the launcher's own output.
[[nodiscard]] DisplayKind display_kind(std::string_view option, std::FILE* out);

/// What the output can show.
struct Look {
    bool color = false;
    bool unicode = true;
};
/// Colours if TERM allows it and NO_COLOR is not set; Unicode if the locale is UTF-8.
[[nodiscard]] Look look_of_environment();

/// @param out  stays open longer than the display
[[nodiscard]] std::unique_ptr<Display> make_display(DisplayKind kind, std::FILE* out,
                                                    std::shared_ptr<const Clock> clock, Look look);

/// How long: "8 s", "3 min 20 s", "2 h 05 min", "4 d 3 h".
[[nodiscard]] std::string duration_text(double seconds);
/// "0.734", "1.2e-05", "12,345": at most four significant digits.
[[nodiscard]] std::string number_text(double value);
/// A metric's name as a person reads it: "length" for "completions/mean_length".
[[nodiscard]] std::string short_name(std::string_view metric);

}  // namespace rankwise::app
