// rankwise report: writes a run's report.html anew.
#include <fmt/format.h>

#include <cstdio>

#include "src/app/commands.hpp"
#include "src/app/report.hpp"

namespace rankwise::app {

int run_report(const Arguments& arguments) {
    const auto fs = io::posix_file_system();
    fmt::print("{}\n", write_report(*fs, {arguments.positional.at(0)}).string());
    return 0;
}

}  // namespace rankwise::app
