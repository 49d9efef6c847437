#include "src/app/train_engine.hpp"

#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace rankwise::app {
namespace {

bool lies_in(const io::Path& path, const io::Path& folder) {
    const io::Path whole = std::filesystem::weakly_canonical(path);
    const io::Path root = std::filesystem::weakly_canonical(folder);
    return std::mismatch(root.begin(), root.end(), whole.begin(), whole.end()).first == root.end();
}

}  // namespace

TrainEngine::TrainEngine(const TrainRecipe& recipe, io::FileSystem& fs, Session& session,
                         const Log& log, const Clock& clock, EnterPhase enter_phase)
    : recipe_(recipe), fs_(fs) {
    session.start_together([&] {
        enter_phase("build", 0);
        build(session.size());
    });
    mesh_ = std::make_unique<parallel::Mesh>(session.world(), shape_);
    environment_ = std::make_unique<stages::Environment>(stages::Environment{
        .compute = *compute_,
        .mesh = *mesh_,
        .models = models_,
        .task = *task_,
        .log = log,
        .clock = clock,
        .seed = static_cast<std::uint64_t>(recipe.run.seed),
        .physical = {.slots = recipe.generation.slots,
                     .prefill_tokens = recipe.generation.prefill_tokens,
                     .deal_interval = recipe.generation.deal_interval,
                     .recompute = recipe.update.recompute == "layer",
                     .head_bytes = recipe.update.head_bytes,
                     .zero = recipe.parallel.zero},
        .faults = {.arrival_order = recipe.faults.break_rule == "chunk_order",
                   .draw_order = recipe.faults.break_rule == "sampling_order",
                   .flip_weight_at = recipe.faults.flip_weight_at,
                   .flip_packed = recipe.faults.flip_weight_in == "packed",
                   .nan_loss_at =
                       session.rank() == recipe.faults.throw_rank ? recipe.faults.nan_loss_at : 0},
        .enter_phase = std::move(enter_phase)});
    log.info("{} ranks, {}, model {} with {} parameters", session.size(), device_->description(),
             model::name_of(policy().config().family), policy().table().elements());
}

void TrainEngine::build(int ranks) {
    shape_ = recipe_.parallel.shape(ranks);
    const std::vector<std::string> problems = parallel::check_shape(shape_, ranks);
    if (!problems.empty()) throw Problems(problems);
    device_ = recipe_.device.make();
    stream_ = device_->make_stream();
    arena_ = std::make_unique<kernels::Arena>(*device_);
    compute_ = std::make_unique<model::Compute>(model::Compute{*device_, *stream_, *arena_});
    source_ = recipe_.model.source(fs_);
    const stages::ModelSource* source = source_ ? &*source_ : nullptr;
    task_ = std::make_unique<stages::TaskData>(
        stages::load_task(recipe_.task, source, static_cast<std::uint64_t>(recipe_.run.seed)));
    model::ModelConfig config = recipe_.model.config(task_->tokenizer, source);
    if (recipe_.faults.break_rule == "leaf_order" && recipe_.device.threads > 1)
        config.reduction = {config.tree().leaves()};  // planted: left to right, without the tree
    models_.add("policy", std::make_unique<model::Weights>(*device_, config,
                                                           model::Passes::forward_and_backward));
}

void TrainEngine::load_policy() {
    if (source_) {
        source_->load(policy(), *compute_);
    } else {
        recipe_.model.initialise(policy(), environment_->seed, *compute_);
    }
}

void TrainEngine::load_policy(const std::string& start_from) {
    if (start_from == "random") {
        recipe_.model.initialise(policy(), environment_->seed, *compute_);
        return;
    }
    matching_source(start_from).load(policy(), *compute_);
}

stages::ModelSource TrainEngine::matching_source(const std::string& path) {
    auto source = stages::ModelSource::open(fs_, path);
    source.require_same_model(policy().config());
    if (source.tokenizer()) {
        stages::require_same_tokens(*source.tokenizer(), source.path().string(), task_->tokenizer,
                                    "the run");
    }
    return source;
}

void TrainEngine::check_stages(Session& session, std::size_t first, const io::Path& own) {
    session.start_together([&] {
        std::vector<std::string> problems;
        for (const auto& stage : std::span(recipe_.stages).subspan(first)) {
            const auto add = [&](const std::string& problem) {
                problems.push_back(fmt::format("[stage.{}] {}", stage->name, problem));
            };
            for (const std::string& problem : stage->recipe.problems(*environment_)) add(problem);
            if (stage->start_from.empty() || stage->start_from == "random" ||
                lies_in(stage->start_from, own)) {
                continue;
            }
            try {
                (void)matching_source(stage->start_from);
            } catch (const BadInput& problem) {  // a damaged file has a code of its own
                add(fmt::format("start_from: {}", problem.what()));
            }
        }
        if (!problems.empty()) throw Problems(problems);
    });
    session.start_together(
        [&] {
            const std::vector<std::string> problems = stages::rows_too_long(
                *task_, policy().config().max_position, session.rank(), session.size());
            if (!problems.empty()) throw Problems(problems);
        },
        Session::Concerns::run);
}

}  // namespace rankwise::app
