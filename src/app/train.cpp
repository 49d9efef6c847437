// `rankwise train`: the stages of a recipe, one after another, with checkpoints, metrics, display
// and report.
#include <fmt/ranges.h>

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <set>
#include <utility>

#include "src/app/commands.hpp"
#include "src/app/display.hpp"
#include "src/app/memory_plan.hpp"
#include "src/app/planted_fault.hpp"
#include "src/app/report.hpp"
#include "src/app/run_directory.hpp"
#include "src/app/session.hpp"
#include "src/app/stop.hpp"
#include "src/app/thread_ranks.hpp"
#include "src/app/traces.hpp"
#include "src/app/train_engine.hpp"
#include "src/app/train_recipe.hpp"
#include "src/app/train_records.hpp"
#include "src/base/numerics_version.hpp"
#include "src/stages/checkpointing.hpp"

namespace rankwise::app {
namespace {

class TrainRun {
  public:
    TrainRun(Recipe& recipe, TrainRecipe& options, const io::Path& recipe_file, Session& session)
        : recipe_(recipe),
          options_(options),
          session_(session),
          fs_(io::posix_file_system({.direct = options.run.direct_io})),
          clock_(std::make_shared<SteadyClock>()),
          stop_(options.run.time_limit_s, clock_),
          fault_(options.faults, session.rank()),
          traffic_(session.world().instruments().traffic),
          directory_(*fs_,
                     options.run.directory.empty() ? default_directory(recipe_file)
                                                   : io::Path(options.run.directory),
                     session),
          resume_(directory_.find_resume(recipe, options.resume, session)),
          log_(directory_.open_log(session.rank(), options.run.log_level)),
          program_bytes_(session.world().all_reduce_max("memory:program", program_bytes())),
          watchdog_(
              session.start_watchdog(options.run.watchdog_s, options.run.watchdog_end_s,
                                     [this](const std::string& line) { report_stall(line); })),
          engine_(options, directory_.paths(), *fs_, session, log_, *clock_,
                  [this](std::string_view phase, std::int64_t step) { enter_phase(phase, step); }),
          checkpointer_(*fs_, directory_.paths().checkpoints(), engine_.environment(),
                        stages::Retention{options.run.keep_last, options.run.keep_every},
                        options.run.checkpoint_in_background,
                        [this](const io::Path& path) { log_.info("saved {}", path.string()); }) {
        session.set_log(log_);
        directory_.write_recipe(recipe, session);
        for (const std::string& note : resume_.notes) log_.warning("{}", note);
    }

    int run() {
        Position at = restore_position();
        engine_.check_stages(session_, at.stage);
        plan_memory(at.stage);
        std::optional<io::MetricPosition> resumed;
        if (reader_) resumed = {options_.stages[at.stage]->name, at.step};
        const bool main_rank = session_.rank() == 0;
        display_ =
            make_display(main_rank ? display_kind(options_.run.display, stdout) : DisplayKind::off,
                         stdout, clock_, look_of_environment());
        records_ =
            std::make_unique<TrainRecords>(*fs_, directory_.paths(), options_.run,
                                           recipe_.digest_options(), session_.rank(), resumed);
        display_->note(greeting(at));
        for (; at.stage < options_.stages.size(); ++at.stage) {
            if (!run_stage(at)) return save_and_leave();
        }
        checkpointer_.finish();
        if (main_rank) {
            write_report(*fs_, directory_.paths());
            display_->note(records_->summary());
            display_->finish();
        }
        return static_cast<int>(ExitCode::done);
    }

  private:
    void report_stall(const std::string& line) const {
        log_.error("{}", line);
        std::fprintf(stderr, "%s\n", line.c_str());
    }

    void enter_phase(std::string_view phase, std::int64_t step) {
        if (session_.recorder()) session_.recorder()->set_phase(phase, step);
        fault_.enter(phase, step);
        traffic_.enter_phase(phase);
        if (display_) display_->activity(phase == "evaluate" ? "evaluating" : "");
        // A checkpoint becomes whole as soon as its files are written, not only after the step.
        if (records_ && phase != "checkpoint") checkpointer_.poll();
    }

    /// Before anything is computed: what the stages will need, and whether there is so much.
    void plan_memory(std::size_t first) {
        const std::int64_t available = memory_to_plan_for();
        if (options_.update.recompute == "fit") fit_memory(first, available);
        session_.start_together([&] {
            memory_ = engine_.plan_memory(first);
            log_.info("{}", memory_table(memory_, program_bytes_));
            const bool refuse = options_.run.memory_check == "refuse";
            require_memory(memory_, program_bytes_, session_.ranks_here(),
                           refuse ? available : std::numeric_limits<std::int64_t>::max());
        });
    }

    /// Bytes that the ranks of this node may take beside what they hold already: of all nodes' the
    /// least for a rank, so that all ranks plan, and say, the same.
    [[nodiscard]] std::int64_t memory_to_plan_for() const {
        const auto limit = static_cast<std::int64_t>(options_.run.memory_gb * 1e9);
        const std::int64_t each = limit == 0 ? available_bytes() / session_.ranks_here()
                                             : std::max(std::int64_t{0}, limit - program_bytes_);
        return session_.world().all_reduce_min("memory:available", each) * session_.ranks_here();
    }

    /// Chooses the layers that are computed again: of all ranks' needs the greatest.
    void fit_memory(std::size_t first, std::int64_t available) {
        std::int64_t layers = 0;
        session_.start_together([&] {
            layers = engine_.fit_memory(first, engine_.layout(), available / session_.ranks_here())
                         .recompute;
        });
        layers = session_.world().all_reduce_max("memory:recompute", layers);
        engine_.set_recompute(layers);
        log_.info("the backward pass computes activations of {} layers of each stage again",
                  layers);
    }

    /// Planned against measured, for the log and the report.
    void record_resources(const StageMemory& planned) {
        const std::vector<TrafficRecord> sent = traffic_.compare(planned.sent, session_.world());
        for (const TrafficRecord& row : sent) {
            log_.info(
                "stage {}: {} over the {} axis: {:.3f} MB a rank and step at most, {:.3f} planned",
                planned.stage, row.phase, row.axis, static_cast<double>(row.sent) / 1e6,
                static_cast<double>(row.planned) / 1e6);
        }
        if (!session_.owns_process()) return;  // the process is of several ranks
        const std::int64_t peak =
            session_.world().all_reduce_max("memory:peak", peak_resident_bytes());
        log_.info("stage {}: {} MB at the peak, {} planned", planned.stage, megabytes(peak),
                  megabytes(planned.bytes() + program_bytes_));
        if (session_.rank() != 0) return;
        records_->resources({planned.stage, planned.bytes() + program_bytes_, peak, sent});
    }

    /// Where to begin.
    Position restore_position() {
        Position at;
        std::string seen;
        session_.start_together([&] {
            if (!resume_.checkpoint) return;
            enter_phase("restore", 0);
            reader_ = std::make_unique<io::CheckpointReader>(*fs_, *resume_.checkpoint,
                                                             session_.ranks_here() == 1);
            const auto& values = reader_->state().values;
            const auto number = [&](const char* name) {
                return std::get<std::int64_t>(values.at(name));
            };
            at = {.stage = narrow<std::size_t>(number("run.stage_index")),
                  .step = number("run.stage_step"),
                  .steps_before = number("run.steps_before"),
                  .updates_before = number("run.updates_before")};
            seen = to_hex(io::manifest_digest(*fs_, *resume_.checkpoint));
            require(at.stage < options_.stages.size(),
                    "the checkpoint {} is of stage {}, but the recipe has {}",
                    resume_.checkpoint->string(), at.stage + 1, options_.stages.size());
        });
        require_same_files("checkpoint that the run goes on from", seen);
        return at;
    }

    /// Ranks on other nodes may see other files under the same path. Without this they would train
    /// pieces of two models.
    void require_same_files(const std::string& what, const std::string& fingerprint) {
        session_.require_same(what, fingerprint,
                              "every rank must see the same files: put them on a shared file "
                              "system, or the same ones on every node");
    }

    /// @return false if the run is to stop; the checkpoint is written then
    bool run_stage(Position& at) {
        const NamedStage& named = *options_.stages[at.stage];
        std::unique_ptr<stages::Stage> stage;
        const StageMemory& memory = memory_[at.stage + memory_.size() - options_.stages.size()];
        session_.start_together([&] {
            engine_.reserve(memory);
            reset_peak();  // what the stage before held is given back by now
            traffic_.begin_stage();
            if (reader_) {
                engine_.resume_stage(at.stage);
            } else {
                engine_.begin_stage(at.stage);
            }
            stage = named.recipe.build(engine_.environment());
        });
        const stages::Checkpointer::StageScope scope(checkpointer_);
        if (reader_) {
            stages::restore_stage(*reader_, engine_.environment(), *stage);
            reader_.reset();
        } else {
            require_same_files("model that stage " + named.name + " starts from", engine_.loaded());
        }
        StepView view{.stage = named.name,
                      .kind = named.kind,
                      .stage_index = static_cast<std::int64_t>(at.stage),
                      .stages = std::ssize(options_.stages),
                      .step = at.step,
                      .steps = stage->steps()};
        display_->begin_stage(view);
        std::set<std::int64_t> to_trace;
        for (const std::string& text : options_.run.trace) {
            const TracedStep traced = *traced_step(text);
            if (traced.stage != named.name) continue;
            to_trace.insert(traced.step);
            if (traced.step > stage->steps())
                log_.warning("[run] trace = {}: the stage has {} steps", text, stage->steps());
        }
        bool saved = true;  // what a restart would find is what there is
        for (; at.step < stage->steps(); ++at.step) {
            const stages::StepResult result = to_trace.contains(at.step + 1)
                                                  ? traced(named.name, at.step, *stage)
                                                  : stage->step(at.step);
            const UInt128 weights = engine_.policy().digest(engine_.compute());
            traffic_.end_step();
            records_->step(named, at, result, weights, engine_.environment(), view);
            if (session_.rank() == 0) display_->step(view);
            saved = false;
            const bool last = at.step + 1 == stage->steps();
            const bool due = options_.run.checkpoint_every > 0 &&
                             (at.step + 1) % options_.run.checkpoint_every == 0;
            const StopReason reason = stop_.agreed(session_.world());
            ++steps_done_;
            const bool enough =
                options_.run.stop_after_steps > 0 && steps_done_ >= options_.run.stop_after_steps;
            const bool stopping = reason != StopReason::none || enough;
            if (last || due || stopping) {
                Position done = at;
                ++done.step;
                save(done, *stage);
                saved = true;
            }
            if (stopping && !(last && at.stage + 1 == options_.stages.size())) {
                stop_text_ = fmt::format("stopped by {} after step {} of {}",
                                         enough ? "stop_after_steps" : name_of(reason), at.step + 1,
                                         named.name);
                return false;
            }
        }
        if (!saved) save(at, *stage);
        checkpointer_.finish();  // should the next stage not come to its first step
        export_model(named.name, at);
        record_resources(memory);
        at.steps_before += stage->steps();
        at.updates_before += stage->updates();
        at.step = 0;
        return true;
    }

    /// One step, recorded.
    stages::StepResult traced(const std::string& name, std::int64_t index, stages::Stage& stage) {
        const TracedStep step{name, index + 1};
        update::UpdateTrace trace(engine_.policy());
        stage.watch(&trace);
        stages::StepResult result = stage.step(index);
        stage.watch(nullptr);
        if (session_.rank() == 0) begin_trace(*fs_, directory_.paths().traces(), step);
        session_.world().barrier("trace:begin");
        write_trace(*fs_, directory_.paths().traces(), step, {session_.rank(), session_.size()},
                    trace.records());
        log_.info("{} values of the update are in {}", trace.records().size(),
                  directory_.paths().traces().string());
        return result;
    }

    void save(const Position& at, stages::Stage& stage) {
        enter_phase("checkpoint", at.step);
        records_->sync();
        io::RunState state{.stage = options_.stages[at.stage]->name,
                           .step = at.steps_before + at.step,
                           .seed = engine_.environment().seed,
                           .policy_version = at.updates_before + stage.updates(),
                           .numerics_version = kNumericsVersion,
                           .options_digest = recipe_.digest_options(),
                           .options = recipe_.resolved_text(),
                           .mesh = stages::mesh_record(engine_.shape())};
        state.values = {{"run.stage_index", static_cast<std::int64_t>(at.stage)},
                        {"run.stage_step", at.step},
                        {"run.steps_before", at.steps_before},
                        {"run.updates_before", at.updates_before}};
        checkpointer_.save(stage, std::move(state));
    }

    void export_model(const std::string& stage, const Position& at) {
        enter_phase("export", at.step);
        const io::Path folder = directory_.paths().models() / stage;
        // The ranks that share the model bring the weights together; one writes.
        if (engine_.policy().shared_by_data() || engine_.environment().data().rank() == 0)
            model::export_folder(engine_.policy(), *fs_, folder, engine_.compute());
        if (session_.rank() == 0) {
            for (const auto& [name, text] : engine_.environment().task.tokenizer.files()) {
                io::replace_file(*fs_, folder / name, io::bytes_of(text));
            }
        }
        session_.world().barrier("model:exported");
    }

    int save_and_leave() {
        checkpointer_.finish();
        display_->note(
            fmt::format("{}; saved. The same command goes on from here, "
                        "on any number of ranks.",
                        stop_text_));
        display_->finish();
        return static_cast<int>(ExitCode::requeue);
    }

    [[nodiscard]] std::string greeting(const Position& start) {
        std::string text =
            fmt::format("{}: {} rank{}, {}, {} parameters", directory_.paths().root.string(),
                        session_.size(), session_.size() == 1 ? "" : "s",
                        engine_.device().description(), engine_.policy().table().elements());
        if (resume_.checkpoint) {
            text +=
                fmt::format("\ngoing on from {} (stage {}, step {})", resume_.checkpoint->string(),
                            options_.stages[start.stage]->name, start.step);
        }
        text += "\n" + memory_line(memory_, program_bytes_);
        for (const std::string& note : resume_.notes) text += "\n" + note;
        return text;
    }

    Recipe& recipe_;
    TrainRecipe& options_;
    Session& session_;
    std::unique_ptr<io::FileSystem> fs_;
    std::shared_ptr<const Clock> clock_;
    StopConditions stop_;
    PlantedFault fault_;
    TrafficMeter traffic_;
    RunDirectory directory_;
    ResumePoint resume_;
    Log log_;
    std::unique_ptr<Display> display_;
    std::unique_ptr<TrainRecords> records_;
    std::int64_t program_bytes_;  ///< what any rank's process takes before it has a model
    std::unique_ptr<parallel::Watchdog> watchdog_;
    TrainEngine engine_;
    stages::Checkpointer checkpointer_;
    std::unique_ptr<io::CheckpointReader> reader_;  ///< until the first stage has been restored
    std::vector<StageMemory> memory_;  ///< of the stages from the first of this start on
    std::string stop_text_;
    std::int64_t steps_done_ = 0;  ///< of this start
};

int train_on(const Arguments& arguments, Session& session) {
    const io::Path file = arguments.positional.at(0);
    TrainRecipe options;
    std::unique_ptr<Recipe> recipe;
    session.start_together([&] {
        recipe = std::make_unique<Recipe>(Recipe::read(file, arguments.settings));
        options.bind(*recipe);
        recipe->finish();
    });
    session.require_same("recipe", recipe->logical_text(),
                         "give every rank the same file and the same command line");
    session.require_same("[run] check_collectives",
                         options.run.check_collectives ? "true" : "false",
                         "ranks compare calls only if all of them do");
    session.world().check_collectives(options.run.check_collectives);
    const ParallelOptions& axes = options.parallel;
    // Ranks bring values together in a step that is traced.
    session.require_same("list of [run] trace",
                         fmt::format("run.trace = {}\n", fmt::join(options.run.trace, ", ")),
                         "ranks that work together must trace the same steps");
    session.require_same(
        "division of the ranks",
        fmt::format("parallel.data = {}\nparallel.pipeline = {}\nparallel.schedule = {}\n"
                    "parallel.tensor = {}\nparallel.expert = {}\nparallel.zero = {}\n",
                    axes.data, axes.pipeline, axes.schedule, axes.tensor, axes.expert, axes.zero),
        "ranks that work together must give these alike");
    return TrainRun(*recipe, options, file, session).run();
}

}  // namespace

int run_train(const Arguments& arguments, Session& session) {
    std::int64_t thread_ranks = 1;
    for (const Setting& setting : arguments.settings) {
        if (setting.key == "parallel.thread_ranks")
            thread_ranks = std::atoll(setting.value.c_str());
    }
    if (thread_ranks <= 1 || session.size() > 1) return train_on(arguments, session);
    return run_on_threads(static_cast<int>(thread_ranks),
                          [&](Session& mine) { return train_on(arguments, mine); });
}

}  // namespace rankwise::app
