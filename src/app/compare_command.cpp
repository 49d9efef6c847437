// rankwise compare: where two runs part.
#include <fmt/format.h>

#include <cstdio>

#include "src/app/commands.hpp"
#include "src/app/compare.hpp"
#include "src/app/terminal_text.hpp"

namespace rankwise::app {
namespace {

void print(const char* what, const std::optional<Difference>& difference, std::int64_t compared,
           const char* unit) {
    if (!difference) {
        fmt::print("{:<12}equal ({} {})\n", what, compared, unit);
        return;
    }
    fmt::print("{:<12}first difference at {}\n", what, difference->place);
    fmt::print("            A  {}\n", cut_text(printable(difference->first), 200));
    fmt::print("            B  {}\n", cut_text(printable(difference->second), 200));
}

}  // namespace

int run_compare(const Arguments& arguments) {
    const auto fs = io::posix_file_system();
    const Comparison comparison =
        compare_runs(*fs, arguments.positional.at(0), arguments.positional.at(1));
    if (!comparison.options.empty()) {
        fmt::print("options     differ\n");
        for (const std::string& line : comparison.options) fmt::print("            {}\n", line);
    }
    print("metrics", comparison.metrics, comparison.steps, "lines");
    print("rollouts", comparison.rollouts, comparison.rollouts_compared, "steps that both have");
    if (comparison.traces_compared > 0)
        print("traces", comparison.traces, comparison.traces_compared, "steps that both have");
    if (const auto& step = comparison.to_trace) {
        fmt::print(
            "            To learn the layer, operation and ranks that part, train both again from "
            "before that\n            step (--resume.step) with --run.trace {}:{}, and compare.\n",
            step->stage, step->step);
    }
    print("checkpoints", comparison.checkpoints, comparison.checkpoints_compared,
          "steps that both have");
    return static_cast<int>(comparison.equal() ? ExitCode::done : ExitCode::bad_numbers);
}

}  // namespace rankwise::app
