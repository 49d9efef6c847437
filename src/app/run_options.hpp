// [run] and [resume]: what belongs to the run as a whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/base/options.hpp"

namespace rankwise::app {

struct RunOptions {
    std::vector<std::string> stages;  ///< names of [stage.NAME], in the order in which they run
    std::int64_t seed = 1;
    std::string directory;  ///< empty: runs/<name of the recipe's file>
    double time_limit_s = 0.0;
    std::int64_t stop_after_steps = 0;
    std::int64_t checkpoint_every = 50;
    bool checkpoint_in_background = true;
    bool direct_io = true;
    std::int64_t keep_last = 2;
    std::int64_t keep_every = 0;
    std::int64_t rollouts_every = 1;
    std::int64_t sample_every = 10;
    std::vector<std::string> trace;  ///< "stage:step"
    std::string memory_check = "refuse";
    double memory_gb = 0.0;
    std::string display = "auto";
    std::string log_level = "info";
    double watchdog_s = 300.0;
    double watchdog_end_s = 300.0;
    bool check_collectives = false;

    [[nodiscard]] OptionList options();
};

struct ResumeOptions {
    std::int64_t step = -1;           ///< below 0: the newest whole checkpoint
    std::vector<std::string> accept;  ///< "section.key" of logical options that may differ

    [[nodiscard]] OptionList options();
};

}  // namespace rankwise::app
