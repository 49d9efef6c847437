// report.html: the story of a run on one page that needs no network.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/fs.hpp"
#include "src/app/run_directory.hpp"
#include "src/app/run_records.hpp"

namespace rankwise::app {

/// The page: the chain of stages as a picture, a table with what each can do after it, by
/// difficulty, one problem as answered after each stage; then curves of each stage, how its time
/// was spent, the same problem answered early and late, memory as planned and as measured, the
/// recipe.
/// @param recipe  recipe.ini's text
[[nodiscard]] std::string report_html(std::string_view title,
                                      const std::vector<MetricRecord>& metrics,
                                      const std::vector<SampleRecord>& samples,
                                      const std::vector<MemoryRecord>& memory,
                                      std::string_view recipe);

/// Reads the run's files and replaces its report.html as a whole. Works on a run that still goes
/// on.
/// @return the path
/// @throws EnvironmentError, CorruptFile from reading; BadInput if the directory is no run's.
io::Path write_report(io::FileSystem& fs, const RunPaths& paths);

}  // namespace rankwise::app
