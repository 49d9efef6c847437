// What a run has written down about itself, read back for the report and for comparing runs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/fs.hpp"
#include "io/metrics.hpp"
#include "src/app/display.hpp"
#include "src/app/phase_traffic.hpp"

namespace rankwise::app {

/// One line of metrics.jsonl.
struct MetricRecord {
    std::string stage = {};
    std::int64_t step = 0;
    bool evaluation = false;  ///< `"record": "evaluation"`: its metrics are named eval/…
    std::vector<std::pair<std::string, double>> numbers = {};     ///< as written; null is left out
    std::vector<std::pair<std::string, std::string>> texts = {};  ///< digests and the like
    std::int64_t line = 0;
    /// Null if there is none.
    [[nodiscard]] const double* number(std::string_view name) const;
    [[nodiscard]] const std::string* text(std::string_view name) const;
};

/// A file as text.
/// @throws EnvironmentError if it cannot be read.
[[nodiscard]] std::string read_text(io::FileSystem& fs, const io::Path& path);

/// The lines of a metrics file in order. A torn last line (of a run that lives or died) is left
/// out.
/// @throws EnvironmentError if it cannot be read; CorruptFile (file and line) if another line is no
/// JSON object or lacks `stage` or `step`.
[[nodiscard]] std::vector<MetricRecord> read_metrics(io::FileSystem& fs, const io::Path& path);

/// One line of samples.jsonl.
struct SampleRecord {
    std::string stage = {};
    std::int64_t step = 0;
    SampleView sample = {};
    bool evaluation = false;  ///< of a held-out problem
    bool right = false;       ///< the first reward is at least 1
};

/// Without the line end. Bytes that are not UTF-8 become U+FFFD.
[[nodiscard]] std::string to_json_line(const SampleRecord& record);
/// Same rules as read_metrics; none if there is no file.
[[nodiscard]] std::vector<SampleRecord> read_samples(io::FileSystem& fs, const io::Path& path);

/// Memory of a stage on the rank that took most, as planned and as measured; bytes. Likewise what
/// ranks sent in a step.
struct MemoryRecord {
    std::string stage = {};
    std::int64_t planned = 0;
    std::int64_t peak = 0;
    std::vector<TrafficRecord> sent = {};
};
[[nodiscard]] io::MetricLine metric_line(const MemoryRecord& record);
/// memory.jsonl, a record a stage: of one that was gone on with the largest. Same rules.
[[nodiscard]] std::vector<MemoryRecord> read_memory(io::FileSystem& fs, const io::Path& path);

/// Appends samples, each with one write.
class SampleWriter {
  public:
    /// Opens `path`, made if absent. Without `resume` it begins empty; with it, samples behind that
    /// step of its stage and of the stages that follow are dropped (the run will come by again).
    SampleWriter(io::FileSystem& fs, const io::Path& path,
                 const std::optional<io::MetricPosition>& resume);
    void append(const SampleRecord& record);

  private:
    std::unique_ptr<io::File> file_;
    std::int64_t end_ = 0;
};

}  // namespace rankwise::app
