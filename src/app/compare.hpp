// Where two runs part.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/fs.hpp"
#include "src/app/difference.hpp"
#include "src/app/run_records.hpp"
#include "src/app/traces.hpp"

namespace rankwise::app {

/// The first line of metrics that differs: of its values the one of the earliest phase (generate,
/// score, update, then the rest). Times and speeds are left out: they differ between equal runs.
[[nodiscard]] std::optional<Difference> compare_metrics(const std::vector<MetricRecord>& a,
                                                        const std::vector<MetricRecord>& b);

/// The first tensor that differs of two checkpoints: model, kind, parameter, element and its
/// values.
/// @throws as io::CheckpointReader
[[nodiscard]] std::optional<Difference> compare_checkpoints(io::FileSystem& fs, const io::Path& a,
                                                            const io::Path& b);

/// The first trajectory that differs of two steps of rollouts, in canonical order (group, sample),
/// and what of it: the first token, log-probability, score or reward.
/// @throws as io::read_rollouts
[[nodiscard]] std::optional<Difference> compare_rollouts(io::FileSystem& fs, const io::Path& a,
                                                         const io::Path& b);

/// What of a run was compared, and where it first differs.
struct Comparison {
    std::vector<std::string> options;  ///< logical options that differ, a line each
    std::optional<Difference> metrics;
    std::optional<Difference> rollouts;
    std::optional<Difference> traces;
    std::optional<Difference> checkpoints;
    /// The step in which metrics differ, if neither trace says where.
    std::optional<TracedStep> to_trace;
    std::int64_t steps = 0;  ///< lines of metrics that both have
    std::int64_t rollouts_compared = 0;
    std::int64_t traces_compared = 0;
    std::int64_t checkpoints_compared = 0;
    [[nodiscard]] bool equal() const {
        return options.empty() && !metrics && !rollouts && !traces && !checkpoints;
    }
};

/// Compares two run directories: recipes, metrics, then the steps of rollouts, the traces and the
/// checkpoints that both have, ascending, each until the first difference.
[[nodiscard]] Comparison compare_runs(io::FileSystem& fs, const io::Path& a, const io::Path& b);

}  // namespace rankwise::app
