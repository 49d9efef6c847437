// What a training run writes down of its steps: metrics and samples on rank 0, rollouts on all.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/fs.hpp"
#include "io/metrics.hpp"
#include "src/app/display.hpp"
#include "src/app/run_directory.hpp"
#include "src/app/run_records.hpp"
#include "src/app/train_recipe.hpp"
#include "src/base/uint128.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::app {

class TrainRecords {
  public:
    /// Rank 0 opens metrics and samples.
    /// @param resumed  a restart writes behind this step: lines after it, which the run that died
    /// left, go away. Nothing: all of them do.
    TrainRecords(io::FileSystem& fs, const RunPaths& paths, const RunOptions& options,
                 UInt128 options_digest, int rank, std::optional<io::MetricPosition> resumed);

    /// A step that is done. Collective. `view` is what rank 0 shows of it: its step, metrics and
    /// sample are set.
    /// @param at  its `step` is the one that has just been done
    void step(const NamedStage& named, const Position& at, const stages::StepResult& result,
              const UInt128& weights, const stages::Environment& environment, StepView& view);

    /// On rank 0: what a stage that is done took at its peak and sent, beside what was planned.
    void resources(const MemoryRecord& record);

    /// Returns when the metrics so far are on the disk.
    void sync();

    /// What the whole run measured, earlier starts of it too: for rank 0 at the end.
    [[nodiscard]] std::string summary() const;

  private:
    void write_rollouts(const NamedStage& named, const Position& at,
                        const stages::StepResult& result, const stages::Environment& environment);
    void write_metrics(const NamedStage& named, std::int64_t done, const stages::StepResult& result,
                       const UInt128& weights);
    void show(const NamedStage& named, std::int64_t done, const stages::StepResult& result,
              StepView& view);

    io::FileSystem& fs_;
    RunPaths paths_;
    const RunOptions& options_;
    UInt128 options_digest_;
    std::unique_ptr<io::MetricsWriter> metrics_;  ///< rank 0
    std::unique_ptr<SampleWriter> samples_;       ///< rank 0
};

}  // namespace rankwise::app
