// `rankwise train`: the stages of a recipe, one after another, with checkpoints, metrics, display
// and report.
#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "io/metrics.hpp"
#include "io/rollouts.hpp"
#include "parallel/thread_world.hpp"
#include "src/app/commands.hpp"
#include "src/app/display.hpp"
#include "src/app/engine_options.hpp"
#include "src/app/report.hpp"
#include "src/app/run_directory.hpp"
#include "src/app/run_options.hpp"
#include "src/app/run_records.hpp"
#include "src/app/session.hpp"
#include "src/app/stop.hpp"
#include "src/app/story.hpp"
#include "src/base/numerics_version.hpp"
#include "src/stages/checkpointing.hpp"
#include "src/stages/stage_table.hpp"

namespace rankwise::app {
namespace {

/// Everything that a recipe says, parsed.
struct TrainRecipe {
    RunOptions run;
    ResumeOptions resume;
    DeviceOptions device;
    ParallelOptions parallel;
    GenerationOptions generation;
    UpdateOptions update;
    FaultOptions faults;
    ModelOptions model;
    stages::TaskOptions task;
    struct NamedStage {
        std::string name;
        std::string kind;
        std::string start_from;  ///< empty: where the stage before ended
        stages::StageRecipe recipe;
    };
    std::vector<std::unique_ptr<NamedStage>> stages;

    void bind(Recipe& recipe) {
        recipe.bind("run", run.options());
        recipe.bind("resume", resume.options());
        recipe.bind("device", device.options());
        recipe.bind("parallel", parallel.options());
        recipe.bind("generation", generation.options());
        recipe.bind("update", update.options());
        recipe.bind("faults", faults.options());
        recipe.bind("model.policy", model.options());
        recipe.bind("task", task.options());
        if (run.stages.empty())
            recipe.add_problem("run", "stages", "names no stage: nothing would be done");
        for (const std::string& name : run.stages) {
            auto stage = std::make_unique<NamedStage>();
            stage->name = name;
            KindTable kinds;
            for (const stages::StageKind& kind : stages::stage_kinds()) {
                kinds[kind.name] = [&stage, &kind](const std::string&) {
                    stage->recipe = kind.recipe();
                    return stage->recipe.options;
                };
            }
            OptionList common;
            common.logical(
                "start_from", &stage->start_from,
                "weights to start from: empty for what the stage before left (the first: "
                "[model.policy]), random, or a model: a Hugging Face folder, a checkpoint or a "
                "run");
            recipe.bind("stage." + name, common);
            stage->kind = recipe.bind_kind("stage." + name, kinds);
            stages.push_back(std::move(stage));
        }
    }
};

/// Where a restart goes on.
struct Position {
    std::size_t stage = 0;
    std::int64_t step = 0;            ///< steps of the stage that are done
    std::int64_t steps_before = 0;    ///< steps of the stages before it
    std::int64_t updates_before = 0;  ///< optimizer steps of the stages before it
};

/// The metrics that people watch.
constexpr const char* kWatched[] = {"loss", "reward", "completions/mean_length",
                                    "tokens_per_second"};

/// Width of the story at the end: most terminals have it, and a log file reads well with it.
constexpr std::size_t kStoryColumns = 100;

class TrainRun {
  public:
    TrainRun(Recipe& recipe, TrainRecipe& options, const io::Path& recipe_file, Session& session)
        : recipe_(recipe),
          options_(options),
          session_(session),
          fs_(io::posix_file_system()),
          clock_(std::make_shared<SteadyClock>()),
          stop_(options.run.time_limit_s, clock_),
          directory_(*fs_,
                     options.run.directory.empty() ? default_directory(recipe_file)
                                                   : io::Path(options.run.directory),
                     session),
          resume_(directory_.find_resume(recipe, options.resume, session)),
          log_(directory_.open_log(session.rank(), options.run.log_level)),
          watchdog_(
              session.start_watchdog(options.run.watchdog_s, options.run.watchdog_end_s,
                                     [this](const std::string& line) { report_stall(line); })) {
        directory_.write_recipe(recipe, session);
        for (const std::string& note : resume_.notes) log_.warning("{}", note);
    }

    int run() {
        build();
        const Position start = restore_position();
        const bool main_rank = session_.rank() == 0;
        display_ =
            make_display(main_rank ? display_kind(options_.run.display, stdout) : DisplayKind::off,
                         stdout, clock_, look_of_environment());
        std::optional<io::MetricPosition> resumed;
        if (reader_) resumed = {options_.stages[start.stage]->name, start.step};
        if (main_rank) {
            metrics_ =
                std::make_unique<io::MetricsWriter>(*fs_, directory_.paths().metrics(), resumed);
            samples_ = std::make_unique<SampleWriter>(*fs_, directory_.paths().samples(), resumed);
            greet(start);
        }
        Position at = start;
        for (; at.stage < options_.stages.size(); ++at.stage) {
            if (!run_stage(at)) return save_and_leave();
        }
        checkpointer_->finish();
        if (main_rank) {
            write_report(*fs_, directory_.paths());
            display_->note(summary());
            display_->finish();
        }
        return static_cast<int>(ExitCode::done);
    }

  private:
    void report_stall(const std::string& line) const {
        log_.error("{}", line);
        std::fprintf(stderr, "%s\n", line.c_str());
    }

    /// Device, ranks, data and model; every rank says what it cannot do.
    void build() {
        session_.start_together([&] {
            shape_ = options_.parallel.shape(session_.size());
            const std::vector<std::string> problems =
                parallel::check_shape(shape_, session_.size());
            if (!problems.empty()) throw Problems(problems);
            device_ = options_.device.make();
            stream_ = device_->make_stream();
            arena_ = std::make_unique<kernels::Arena>(*device_);
            compute_ =
                std::make_unique<model::Compute>(model::Compute{*device_, *stream_, *arena_});
            seed_ = static_cast<std::uint64_t>(options_.run.seed);
            source_ = options_.model.source(*fs_);
            task_ = std::make_unique<stages::TaskData>(
                stages::load_task(options_.task, source_ ? &*source_ : nullptr, seed_));
            const model::ModelConfig config =
                options_.model.config(task_->tokenizer, source_ ? &*source_ : nullptr);
            models_.add("policy", std::make_unique<model::Weights>(
                                      *device_, config, model::Passes::forward_and_backward));
        });
        mesh_ = std::make_unique<parallel::Mesh>(session_.world(), shape_);
        environment_ = std::make_unique<stages::Environment>(stages::Environment{
            .compute = *compute_,
            .mesh = *mesh_,
            .models = models_,
            .task = *task_,
            .log = log_,
            .clock = *clock_,
            .seed = seed_,
            .physical = {.slots = options_.generation.slots,
                         .prefill_tokens = options_.generation.prefill_tokens,
                         .deal_interval = options_.generation.deal_interval,
                         .recompute = options_.update.recompute == "layer",
                         .head_bytes = options_.update.head_bytes,
                         .zero = options_.parallel.zero},
            .faults = {.arrival_order = options_.faults.break_rule == "chunk_order",
                       .flip_weight_at = options_.faults.flip_weight_at},
            .enter_phase = [this](std::string_view phase, std::int64_t step) {
                if (session_.recorder()) session_.recorder()->set_phase(phase, step);
                if (display_ && phase == "evaluate") display_->activity("evaluating");
                if (display_ && phase != "evaluate") display_->activity("");
            }});
        checkpointer_ = std::make_unique<stages::Checkpointer>(
            *fs_, directory_.paths().checkpoints(), *environment_,
            stages::Retention{options_.run.keep_last, options_.run.keep_every},
            options_.run.checkpoint_in_background,
            [this](const io::Path& path) { log_.info("saved {}", path.string()); });
        log_.info("{} ranks, {}, model {} with {} parameters", session_.size(),
                  device_->description(), model::name_of(models_.at("policy").config().family),
                  models_.at("policy").table().elements());
    }

    Position restore_position() {
        Position at;
        session_.start_together([&] {
            if (!resume_.checkpoint) {
                model::Weights& policy = models_.at("policy");
                if (source_) {
                    source_->load(policy, *compute_);
                } else {
                    options_.model.initialise(policy, seed_, *compute_);
                }
                return;
            }
            reader_ = std::make_unique<io::CheckpointReader>(*fs_, *resume_.checkpoint);
            const auto& values = reader_->state().values;
            const auto number = [&](const char* name) {
                return std::get<std::int64_t>(values.at(name));
            };
            at = {.stage = narrow<std::size_t>(number("run.stage_index")),
                  .step = number("run.stage_step"),
                  .steps_before = number("run.steps_before"),
                  .updates_before = number("run.updates_before")};
            require(at.stage < options_.stages.size(),
                    "the checkpoint {} is of stage {}, but the recipe has {}",
                    resume_.checkpoint->string(), at.stage + 1, options_.stages.size());
            stages::load_weights(*reader_, "policy", models_.at("policy"), *compute_);
        });
        return at;
    }

    /// The weights that a stage asks to start from.
    void start_from(const TrainRecipe::NamedStage& named) {
        if (named.start_from.empty()) return;
        model::Weights& policy = models_.at("policy");
        session_.start_together([&] {
            if (named.start_from == "random") {
                options_.model.initialise(policy, seed_, *compute_);
                return;
            }
            const auto source = stages::ModelSource::open(*fs_, named.start_from);
            source.require_same_model(policy.config());
            if (source.tokenizer()) {
                stages::require_same_tokens(*source.tokenizer(), source.path().string(),
                                            task_->tokenizer, "the run");
            }
            source.load(policy, *compute_);
        });
    }

    /// @return false if the run is to stop; the checkpoint is written then
    bool run_stage(Position& at) {
        const TrainRecipe::NamedStage& named = *options_.stages[at.stage];
        if (at.step == 0 && !reader_) start_from(named);
        std::unique_ptr<stages::Stage> stage;
        session_.start_together([&] { stage = named.recipe.build(*environment_); });
        if (reader_) {
            stages::restore_stage(*reader_, *environment_, *stage);
            reader_.reset();
        }
        StepView view{.stage = named.name,
                      .kind = named.kind,
                      .stage_index = static_cast<std::int64_t>(at.stage),
                      .stages = std::ssize(options_.stages),
                      .step = at.step,
                      .steps = stage->steps()};
        display_->begin_stage(view);
        bool saved = true;  // what a restart would find is what there is
        for (; at.step < stage->steps(); ++at.step) {
            stages::StepResult result = stage->step(at.step);
            record(named, at, result, view);
            saved = false;
            const bool last = at.step + 1 == stage->steps();
            const bool due = options_.run.checkpoint_every > 0 &&
                             (at.step + 1) % options_.run.checkpoint_every == 0;
            checkpointer_->poll();
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
        export_model(named.name);
        at.steps_before += stage->steps();
        at.updates_before += stage->updates();
        at.step = 0;
        return true;
    }

    void record(const TrainRecipe::NamedStage& named, const Position& at,
                stages::StepResult& result, StepView& view) {
        const UInt128 weights = models_.at("policy").digest(*compute_);
        write_rollouts(named, at, result);
        if (session_.rank() != 0) return;
        const std::int64_t done = at.step + 1;
        if (!result.evaluation.empty()) {
            io::MetricLine line{
                {"stage", named.name}, {"step", result.evaluation_step}, {"record", "evaluation"}};
            line.insert(line.end(), result.evaluation.begin(), result.evaluation.end());
            if (result.evaluation_step == done)
                line.emplace_back("digest/weights", to_hex(weights));
            pending_.push_back(std::move(line));
        }
        io::MetricLine line{{"stage", named.name}, {"step", done}};
        line.insert(line.end(), result.metrics.begin(), result.metrics.end());
        line.emplace_back("digest/weights", to_hex(weights));
        line.emplace_back("digest/rollouts", to_hex(result.rollouts_digest));
        // An evaluation from before the step comes first, one from after it last.
        if (!pending_.empty() && result.evaluation_step < done) append_pending();
        metrics_->append(line);
        append_pending();
        view.step = done;
        view.metrics.clear();
        for (const auto& source : {std::cref(result.metrics), std::cref(result.evaluation)}) {
            for (const auto& [name, value] : source.get()) {
                const bool watched = std::find(std::begin(kWatched), std::end(kWatched), name) !=
                                         std::end(kWatched) ||
                                     name == "eval/pass@1" || name == "rewards/countdown/mean";
                if (const double* number = std::get_if<double>(&value);
                    watched && number != nullptr) {
                    view.metrics.emplace_back(name, *number);
                }
            }
        }
        const bool show = options_.run.sample_every > 0 &&
                          (done % options_.run.sample_every == 0 || !result.evaluation.empty());
        view.sample.reset();
        if (show && !result.samples.empty()) {
            for (const stages::ShownSample& sample : result.samples) {
                samples_->append({.stage = named.name,
                                  .step = done,
                                  .sample = {sample.prompt, sample.answer, sample.reward},
                                  .evaluation = sample.evaluation,
                                  .right = sample.right});
            }
            const stages::ShownSample& first = result.samples.front();
            view.sample = SampleView{first.prompt, first.answer, first.reward};
        }
        display_->step(view);
    }

    void append_pending() {
        for (const io::MetricLine& line : pending_) metrics_->append(line);
        pending_.clear();
    }

    void write_rollouts(const TrainRecipe::NamedStage& named, const Position& at,
                        const stages::StepResult& result) {
        if (options_.run.rollouts_every <= 0 || (at.step + 1) % options_.run.rollouts_every != 0)
            return;
        if (named.kind == "sft") return;
        parallel::Communicator& data = environment_->data();
        const std::int64_t step = at.steps_before + at.step + 1;
        const io::Path folder = directory_.paths().rollouts() / (io::step_name(step) + ".tmp");
        if (data.rank() == 0) (void)io::begin_step(*fs_, directory_.paths().rollouts(), step);
        data.barrier("rollouts:begin");
        const io::RolloutHeader header{.stage = named.name,
                                       .step = step,
                                       .seed = seed_,
                                       .policy_version = at.updates_before,
                                       .options_digest = recipe_.digest_options(),
                                       .rollouts_digest = result.rollouts_digest};
        const std::vector<io::RolloutPart> mine{
            io::write_rollout_part(*fs_, folder, data.rank(), header, result.rollouts)};
        const auto parts = data.gather_v("rollouts:parts", mine, 0);
        if (data.rank() == 0)
            (void)io::commit_rollouts(*fs_, directory_.paths().rollouts(), header, parts.values);
        data.barrier("rollouts:end");
    }

    void save(const Position& at, stages::Stage& stage) {
        environment_->enter_phase("checkpoint", at.step);
        if (metrics_) metrics_->sync();
        io::RunState state{.stage = options_.stages[at.stage]->name,
                           .step = at.steps_before + at.step,
                           .seed = seed_,
                           .policy_version = at.updates_before + stage.updates(),
                           .numerics_version = kNumericsVersion,
                           .options_digest = recipe_.digest_options(),
                           .options = recipe_.resolved_text(),
                           .mesh = {{"data", shape_.data}}};
        state.values = {{"run.stage_index", static_cast<std::int64_t>(at.stage)},
                        {"run.stage_step", at.step},
                        {"run.steps_before", at.steps_before},
                        {"run.updates_before", at.updates_before}};
        checkpointer_->save(stage, std::move(state));
    }

    void export_model(const std::string& stage) {
        if (session_.rank() == 0) {
            const io::Path folder = directory_.paths().models() / stage;
            model::export_folder(models_.at("policy"), *fs_, folder, *compute_);
            for (const auto& [name, text] : stages::tokenizer_files(*task_)) {
                io::replace_file(*fs_, folder / name, io::bytes_of(text));
            }
        }
        session_.world().barrier("model:exported");
    }

    int save_and_leave() {
        checkpointer_->finish();
        if (session_.rank() == 0) {
            display_->note(fmt::format(
                "{}; saved. The same command goes on from here, on any number of ranks.",
                stop_text_));
            display_->finish();
        }
        return static_cast<int>(ExitCode::requeue);
    }

    void greet(const Position& start) {
        std::string text =
            fmt::format("{}: {} rank{}, {}, {} parameters", directory_.paths().root.string(),
                        session_.size(), session_.size() == 1 ? "" : "s", device_->description(),
                        models_.at("policy").table().elements());
        if (resume_.checkpoint) {
            text +=
                fmt::format("\ngoing on from {} (stage {}, step {})", resume_.checkpoint->string(),
                            options_.stages[start.stage]->name, start.step);
        }
        display_->note(text);
    }

    /// What the whole run measured, earlier starts of it too.
    [[nodiscard]] std::string summary() const {
        const RunPaths& paths = directory_.paths();
        std::string text = run_story(read_metrics(*fs_, paths.metrics()),
                                     read_samples(*fs_, paths.samples()), kStoryColumns);
        if (!text.empty()) text += "\n";
        return text + fmt::format("report: {}", paths.report().string());
    }

    Recipe& recipe_;
    TrainRecipe& options_;
    Session& session_;
    std::unique_ptr<io::FileSystem> fs_;
    std::shared_ptr<const Clock> clock_;
    StopConditions stop_;
    RunDirectory directory_;
    ResumePoint resume_;
    Log log_;
    std::unique_ptr<parallel::Watchdog> watchdog_;
    parallel::MeshShape shape_;
    std::uint64_t seed_ = 0;
    std::unique_ptr<kernels::Device> device_;
    std::unique_ptr<kernels::Stream> stream_;
    std::unique_ptr<kernels::Arena> arena_;
    std::unique_ptr<model::Compute> compute_;
    std::optional<stages::ModelSource> source_;  ///< of [model.policy]; nothing: random
    std::unique_ptr<stages::TaskData> task_;
    model::ModelSet models_;
    std::unique_ptr<parallel::Mesh> mesh_;
    std::unique_ptr<stages::Environment> environment_;
    std::unique_ptr<stages::Checkpointer> checkpointer_;
    std::unique_ptr<io::CheckpointReader> reader_;
    std::unique_ptr<Display> display_;
    std::unique_ptr<io::MetricsWriter> metrics_;
    std::unique_ptr<SampleWriter> samples_;
    std::vector<io::MetricLine> pending_;
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
    // Ranks as threads of this process: the same program over another communicator.
    int code = 0;
    parallel::ThreadWorld world(static_cast<int>(thread_ranks));
    world.run([&](parallel::Communicator& communicator) {
        Session thread_session(communicator, nullptr);
        const int mine = train_on(arguments, thread_session);
        if (communicator.rank() == 0) code = mine;
    });
    return code;
}

}  // namespace rankwise::app
