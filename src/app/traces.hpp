// traces/STAGE_STEP/rank_NNNNN.jsonl: what the updates of a step computed, operation by operation,
// and where those of two runs part.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/fs.hpp"
#include "src/app/difference.hpp"
#include "src/update/update_trace.hpp"

namespace rankwise::app {

/// A step of a stage, as in metrics: the first is 1.
struct TracedStep {
    std::string stage;
    std::int64_t step = 0;
    friend auto operator<=>(const TracedStep&, const TracedStep&) = default;
};

/// "zero:12"; nothing for any other text.
[[nodiscard]] std::optional<TracedStep> traced_step(std::string_view text);

/// Which file of a trace a rank writes.
struct TraceRank {
    int rank = 0;
    int ranks = 1;
};

/// Makes traces/zero_00000012, empty whatever was there: before any rank writes.
void begin_trace(io::FileSystem& fs, const io::Path& traces, const TracedStep& step);
/// Writes this rank's records into its file there.
void write_trace(io::FileSystem& fs, const io::Path& traces, const TracedStep& step, TraceRank rank,
                 const std::vector<update::TraceRecord>& records);

/// The steps that a folder has traces of, by stage and step.
[[nodiscard]] std::vector<TracedStep> traced_steps(io::FileSystem& fs, const io::Path& traces);

/// Where two traces of one step part: the first minibatch, chunk, pass, layer and operation, in the
/// order in which a chunk is computed; gradients last. Values of unequal splits over tensor ranks
/// are passed over. Each side names the ranks that computed the value.
/// @throws CorruptFile if a file is missing or is none of ours
[[nodiscard]] std::optional<Difference> compare_traces(io::FileSystem& fs, const io::Path& a,
                                                       const io::Path& b, const TracedStep& step);

}  // namespace rankwise::app
