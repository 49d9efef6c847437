#include "src/app/train_records.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "src/app/story.hpp"
#include "src/stages/rollout_files.hpp"

namespace rankwise::app {
namespace {

/// The metrics that people watch.
constexpr const char* kWatched[] = {"loss",
                                    "reward",
                                    "completions/mean_length",
                                    "tokens_per_second",
                                    "eval/pass@1",
                                    "rewards/countdown/mean"};

/// Width of the story at the end: most terminals have it, and a log file reads well with it.
constexpr std::size_t kStoryColumns = 120;

void append_watched(const io::MetricLine& line,
                    std::vector<std::pair<std::string, double>>& watched) {
    for (const auto& [name, value] : line) {
        const double* number = std::get_if<double>(&value);
        if (number == nullptr || std::ranges::find(kWatched, name) == std::end(kWatched)) continue;
        watched.emplace_back(name, *number);
    }
}

}  // namespace

TrainRecords::TrainRecords(io::FileSystem& fs, const RunPaths& paths, const RunOptions& options,
                           UInt128 options_digest, int rank,
                           std::optional<io::MetricPosition> resumed)
    : fs_(fs), paths_(paths), options_(options), options_digest_(options_digest) {
    if (rank != 0) return;
    if (!resumed) {  // a run that died before its first checkpoint has left lines
        (void)io::MetricsWriter(fs_, paths_.metrics(), resumed);  // refuses a file of another kind
        fs_.remove_tree(paths_.metrics());
    }
    metrics_ = std::make_unique<io::MetricsWriter>(fs_, paths_.metrics(), resumed);
    samples_ = std::make_unique<SampleWriter>(fs_, paths_.samples(), resumed);
}

void TrainRecords::step(const NamedStage& named, const Position& at,
                        const stages::StepResult& result, const UInt128& weights,
                        const stages::Environment& environment, StepView& view) {
    write_rollouts(named, at, result, environment);
    if (!metrics_) return;
    write_metrics(named, at.step + 1, result, weights);
    show(named, at.step + 1, result, view);
}

void TrainRecords::resources(const MemoryRecord& record) {
    io::MetricsWriter(fs_, paths_.memory(), std::nullopt).append(metric_line(record));
}

void TrainRecords::sync() {
    if (metrics_) metrics_->sync();
}

std::string TrainRecords::summary() const {
    const std::vector<MetricRecord> metrics = read_metrics(fs_, paths_.metrics());
    std::string text = run_story(metrics, read_samples(fs_, paths_.samples()), kStoryColumns,
                                 chain_of(read_text(fs_, paths_.recipe()), metrics));
    if (!text.empty()) text += "\n";
    return text + fmt::format("report: {}", paths_.report().string());
}

void TrainRecords::write_rollouts(const NamedStage& named, const Position& at,
                                  const stages::StepResult& result,
                                  const stages::Environment& environment) {
    if (options_.rollouts_every <= 0 || (at.step + 1) % options_.rollouts_every != 0) return;
    if (named.kind == "sft") return;
    stages::write_rollouts(fs_, paths_.rollouts(), environment.mesh,
                           {.stage = named.name,
                            .step = at.steps_before + at.step + 1,
                            .seed = environment.seed,
                            .policy_version = at.updates_before,
                            .options_digest = options_digest_,
                            .rollouts_digest = result.rollouts_digest},
                           result.rollouts);
}

void TrainRecords::write_metrics(const NamedStage& named, std::int64_t done,
                                 const stages::StepResult& result, const UInt128& weights) {
    io::MetricLine line{{"stage", named.name}, {"step", done}};
    line.insert(line.end(), result.metrics.begin(), result.metrics.end());
    line.emplace_back("digest/weights", to_hex(weights));
    line.emplace_back("digest/rollouts", to_hex(result.rollouts_digest));
    const auto append = [&](const stages::StepEvaluation& measured) {
        io::MetricLine evaluation{
            {"stage", named.name}, {"step", measured.step}, {"record", "evaluation"}};
        evaluation.insert(evaluation.end(), measured.metrics.begin(), measured.metrics.end());
        if (measured.step == done) evaluation.emplace_back("digest/weights", to_hex(weights));
        metrics_->append(evaluation);
    };
    // An evaluation from before the step comes first, one from after it last.
    for (const stages::StepEvaluation& measured : result.evaluations) {
        if (measured.step < done) append(measured);
    }
    metrics_->append(line);
    for (const stages::StepEvaluation& measured : result.evaluations) {
        if (measured.step == done) append(measured);
    }
}

void TrainRecords::show(const NamedStage& named, std::int64_t done,
                        const stages::StepResult& result, StepView& view) {
    view.step = done;
    view.metrics.clear();
    append_watched(result.metrics, view.metrics);
    if (!result.evaluations.empty())
        append_watched(result.evaluations.back().metrics, view.metrics);
    view.sample.reset();
    const bool due = options_.sample_every > 0 &&
                     (done % options_.sample_every == 0 || !result.evaluations.empty());
    if (!due || result.samples.empty()) return;
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

}  // namespace rankwise::app
