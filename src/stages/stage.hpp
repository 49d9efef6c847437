// A stage of a run: some steps with one aim (imitate, reinforce, measure).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/fs.hpp"
#include "io/manifest.hpp"
#include "io/metrics.hpp"
#include "parallel/mesh.hpp"
#include "parallel/pipeline_schedule.hpp"
#include "src/base/clock.hpp"
#include "src/base/log.hpp"
#include "src/model/model_set.hpp"
#include "src/rollout/generator.hpp"
#include "src/stages/task_data.hpp"
#include "src/update/adamw.hpp"
#include "src/update/update_trace.hpp"

namespace rankwise::stages {

/// Options that change no bit: how this run computes, not what.
struct PhysicalOptions {
    std::int64_t slots = 64;
    std::int64_t prefill_tokens = 2048;
    std::int64_t deal_interval = 1;
    std::int64_t recompute = 0;  ///< layers computed again (model::StagePass)
    std::int64_t head_bytes = 32 << 20;
    model::LogitsUse head = model::LogitsUse::automatic;
    std::int64_t zero = 1;
    parallel::Schedule schedule = parallel::Schedule::one_forward_one_backward;
    model::Residency reference = model::Residency::device;
    bool stream_weights = false;   ///< generation gathers sharded weights layer by layer
    std::int64_t expert_rows = 0;  ///< that a rank computes at a time (model::ExpertAxis)
    bool trains_modules = false;   ///< some stage of the run does (model::PipelineAxis)
};

/// Faults that tests plant to see them caught. All off in a real run.
struct PlantedFaults {
    bool arrival_order =
        false;  ///< chunk gradients are added in an order that depends on the rank: breaks N3
    bool draw_order =
        false;  ///< a batch's log-probabilities are summed otherwise than one's: breaks N6
    std::int64_t flip_weight_at =
        -1;                    ///< step after whose generation one bit of a weight is changed
    bool flip_packed = false;  ///< on the last data rank's packed copy alone, not in the masters
    std::int64_t nan_loss_at = 0;  ///< step, from 1, in which this rank's losses are no numbers
};

/// The ranks that share every model of a run.
[[nodiscard]] inline model::ModelAxes model_axes(const parallel::Mesh& mesh,
                                                 const PhysicalOptions& physical) {
    const auto several = [&](parallel::Axis axis) {
        return mesh.degree(axis) > 1 ? &mesh.axis(axis) : nullptr;
    };
    return {.tensor = several(parallel::Axis::tensor),
            .shards = physical.zero == 3 && mesh.degree(parallel::Axis::data) > 1 ? &mesh.weights()
                                                                                  : nullptr,
            .pipeline = model::pipeline_axis(mesh, physical.schedule, physical.trains_modules),
            .experts = {.axis = several(parallel::Axis::expert),
                        .data_rank = mesh.coordinates().data,
                        .rows = physical.expert_rows}};
}

/// What every stage is given. Passed by reference; outlives the stages.
struct Environment {
    model::Compute& compute;
    const parallel::Mesh& mesh;
    model::ModelSet& models;
    const TaskData& task;
    const Log& log;
    const Clock& clock;
    std::uint64_t seed = 0;
    PhysicalOptions physical;
    PlantedFaults faults;
    /// What this rank does from now on: for the watchdog and the display. The first step is 1, as
    /// in metrics.
    std::function<void(std::string_view phase, std::int64_t step)> enter_phase;

    /// The stage that runs, those before it that leave data, and where: folders and files named
    /// after them. Null where nothing is written.
    std::string stage = {};
    std::vector<std::string> data_before = {};
    io::FileSystem* files = nullptr;
    io::Path data_folder = {};
    io::Path offload_folder = {};  ///< for what lies on the disk for a while
    /// Stages are built to be rehearsed: what earlier ones leave is not there, and stood in for.
    bool planning = false;
    /// Told, when a stage is rehearsed, of each part that it has gone through: its phase, and how
    /// often a step has it at most ("evaluate": an evaluation). Null: nobody listens.
    std::function<void(std::string_view phase, double times)> rehearsed = {};

    [[nodiscard]] parallel::Communicator& data() const { return mesh.axis(parallel::Axis::data); }
    /// Ranks that split the models; null: each holds the whole of them.
    [[nodiscard]] parallel::Communicator* tensor() const { return model_axes().tensor; }
    [[nodiscard]] model::ModelAxes model_axes() const { return stages::model_axes(mesh, physical); }
    /// Ranks that the models' layers are dealt to.
    [[nodiscard]] model::PipelineAxis pipeline() const { return model_axes().pipeline; }
    /// Where a model besides the policy lies while it is not used.
    [[nodiscard]] model::Residence residence(const std::string& model) const;
    /// How this run generates.
    [[nodiscard]] rollout::GeneratorOptions generator_options() const {
        return {.slots = physical.slots,
                .prefill_tokens = physical.prefill_tokens,
                .logits_bytes = physical.head_bytes,
                .stream_weights = physical.stream_weights,
                .data_ranks = data().size(),
                .break_order = faults.draw_order};
    }
};

/// An answer to be shown to people.
struct ShownSample {
    std::string prompt;
    std::string answer;
    double reward = 0.0;
    bool right = false;  ///< the first reward is at least 1
    bool evaluation = false;
};

/// What a stage measured itself at.
struct StepEvaluation {
    std::int64_t step = 0;  ///< steps that were done by then
    io::MetricLine metrics;
};

/// What a step leaves behind, besides weights. Metrics are the same on every rank.
struct StepResult {
    io::MetricLine metrics;
    std::vector<StepEvaluation> evaluations;  ///< before the step, after it, or none
    std::vector<Trajectory> rollouts;         ///< this rank's, canonical order
    UInt128 rollouts_digest;
    std::vector<ShownSample> samples;  ///< on data rank 0
};

/// Tensors of a stage that a checkpoint keeps, beside the models' weights.
struct OptimizerState {
    std::string model;
    update::Adamw* optimizer = nullptr;
};

/// Collective: every rank calls every member in the same order.
class Stage {
  public:
    Stage() = default;
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;
    virtual ~Stage() = default;

    [[nodiscard]] virtual std::int64_t steps() const = 0;
    /// Steps come in order, from 0 or from where restore() left off.
    virtual StepResult step(std::int64_t index) = 0;

    /// Named scalars that a restart needs (cursors); and optimizers whose moments it needs.
    [[nodiscard]] virtual std::map<std::string, io::StateValue> state() const { return {}; }
    virtual void restore(const std::map<std::string, io::StateValue>& /*state*/) {}
    [[nodiscard]] virtual std::vector<OptimizerState> optimizers() { return {}; }
    /// Models besides the policy that a checkpoint must keep.
    [[nodiscard]] virtual std::vector<std::string> models() const { return {}; }
    /// The policy's updates of the steps from now on are recorded there (null: nowhere).
    virtual void watch(update::UpdateTrace* /*trace*/) {}
    /// Goes through the largest allocations of a step, for planning on a device that computes
    /// nothing: answers as long as they may become, full chunks. Not collective; leaves nothing.
    virtual void rehearse() {}

    /// Optimizer steps that the policy has taken in this stage.
    [[nodiscard]] virtual std::int64_t updates() const { return 0; }
};

/// Times the phases of a step and tells the environment which one it is.
class PhaseTimer {
  public:
    PhaseTimer(const Environment& environment, std::int64_t step)
        : environment_(environment),
          step_(step),
          begin_s_(environment.clock.now_s()),
          phase_begin_s_(begin_s_) {}
    void enter(const std::string& phase);
    /// Ends the last phase and appends time/<phase> and step_time, in seconds.
    void finish(io::MetricLine& metrics);
    [[nodiscard]] double total_s() const { return environment_.clock.now_s() - begin_s_; }

  private:
    void close();

    const Environment& environment_;
    std::int64_t step_;
    double begin_s_;
    double phase_begin_s_;
    std::string phase_;
    std::vector<std::pair<std::string, double>> times_;
};

}  // namespace rankwise::stages
