// metrics.jsonl: one line a step, which scripts and the report read while the run goes on.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "io/fs.hpp"

namespace rankwise::io {

using MetricValue = std::variant<std::int64_t, double, bool, std::string>;

/// Keys in the order in which they are to appear.
using MetricLine = std::vector<std::pair<std::string, MetricValue>>;

/// One line of JSON without the newline. Doubles have the fewest digits that read back to the same
/// bits, and a '.' or an exponent, so that they stay doubles; what is not finite becomes null (JSON
/// has no word for it).
[[nodiscard]] std::string to_json(const MetricLine& line);

/// The last step whose line is to be kept.
struct MetricPosition {
    std::string stage;
    std::int64_t step = 0;
};

/// Appends lines, each with one write, so that a reader sees whole lines only.
class MetricsWriter {
  public:
    /// Opens `path`, made if absent. A torn last line is dropped. With `resume`, so are lines after
    /// it: of its stage with a later step, and of the stages that follow it.
    /// @throws CorruptFile if a line that is not the last is no JSON object (names file and line);
    /// the file is left as it is.
    MetricsWriter(FileSystem& fs, const Path& path, const std::optional<MetricPosition>& resume);

    void append(const MetricLine& line);
    /// Returns when all lines are on the disk; to be called before a checkpoint is committed.
    void sync();

  private:
    std::unique_ptr<File> file_;
    std::int64_t end_ = 0;
};

}  // namespace rankwise::io
