#include "src/app/train_engine.hpp"

#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "kernels/plan_device.hpp"

namespace rankwise::app {
namespace {

bool lies_in(const io::Path& path, const io::Path& folder) {
    const io::Path whole = std::filesystem::weakly_canonical(path);
    const io::Path root = std::filesystem::weakly_canonical(folder);
    return std::mismatch(root.begin(), root.end(), whole.begin(), whole.end()).first == root.end();
}

model::Residency residency_of(const std::string& name) {
    if (name == "disk") return model::Residency::disk;
    return name == "host" ? model::Residency::host : model::Residency::device;
}

stages::PhysicalOptions physical_options(const TrainRecipe& recipe) {
    return {.slots = recipe.generation.slots,
            .prefill_tokens = recipe.generation.prefill_tokens,
            .deal_interval = recipe.generation.deal_interval,
            .recompute = recipe.update.layers_again(),
            .head_bytes = recipe.update.head_bytes,
            .head = recipe.update.logits(),
            .zero = recipe.parallel.zero,
            .schedule = parallel::schedule_of(recipe.parallel.schedule),
            .reference = residency_of(recipe.update.reference),
            .stream_weights = recipe.generation.weights == "streamed",
            .expert_rows = recipe.parallel.expert_rows,
            .trains_modules = std::ranges::any_of(
                recipe.stages, [](const auto& stage) { return stage->recipe.trains_mtp(); })};
}

}  // namespace

TrainEngine::TrainEngine(const TrainRecipe& recipe, const RunPaths& paths, io::FileSystem& fs,
                         Session& session, const Log& log, const Clock& clock,
                         EnterPhase enter_phase, Purpose purpose)
    : recipe_(recipe), paths_(paths), fs_(fs) {
    session.start_together([&] {
        enter_phase("build", 0);
        build(session.size(), purpose);
    });
    mesh_ = std::make_unique<parallel::Mesh>(session.world(), shape_);
    session.start_together([&] { use_model_of(0); });
    environment_ = std::make_unique<stages::Environment>(stages::Environment{
        .compute = *compute_,
        .mesh = *mesh_,
        .models = models_,
        .task = *task_,
        .log = log,
        .clock = clock,
        .seed = static_cast<std::uint64_t>(recipe.run.seed),
        .physical = physical_options(recipe),
        .faults = {.arrival_order = recipe.faults.break_rule == "chunk_order",
                   .draw_order = recipe.faults.break_rule == "sampling_order",
                   .flip_weight_at = recipe.faults.flip_weight_at,
                   .flip_packed = recipe.faults.flip_weight_in == "packed",
                   .nan_loss_at =
                       session.rank() == recipe.faults.throw_rank ? recipe.faults.nan_loss_at : 0},
        .enter_phase = std::move(enter_phase),
        .files = &fs,
        .data_folder = paths.data(),
        .offload_folder = paths.offload()});
    if (const auto recorder = session.recorder()) compute_->beat = [recorder] { recorder->beat(); };
    log.info("{} ranks, {}, model {} with {} parameters", session.size(), device_->description(),
             model::name_of(policy().config().family), policy().table().elements());
}

void TrainEngine::build(int ranks, Purpose purpose) {
    shape_ = recipe_.parallel.shape(ranks);
    const std::vector<std::string> problems = parallel::check_shape(shape_, ranks);
    if (!problems.empty()) throw Problems(problems);
    device_ = recipe_.device.make();
    if (purpose == Purpose::plan) {
        planned_for_ = std::move(device_);
        device_ = std::make_unique<kernels::PlanDevice>(*planned_for_);
    }
    stream_ = device_->make_stream();
    arena_ = std::make_unique<kernels::Arena>(*device_);
    compute_ = std::make_unique<model::Compute>(model::Compute{*device_, *stream_, *arena_});
    const std::string& first = recipe_.stages.front()->model;
    Described& model = described_[first];
    model.source = recipe_.model_of(first).source(fs_);
    task_ = std::make_unique<stages::TaskData>(
        stages::load_task(recipe_.task, model.source ? &*model.source : nullptr,
                          static_cast<std::uint64_t>(recipe_.run.seed)));
    model.config = config_of(first, model.source);
}

model::ModelConfig TrainEngine::config_of(const std::string& name,
                                          const std::optional<stages::ModelSource>& source) const {
    model::ModelConfig config =
        recipe_.model_of(name).config(task_->tokenizer, source ? &*source : nullptr);
    require_fits(name, config, {shape_, recipe_.parallel.zero});
    if (recipe_.faults.break_rule == "leaf_order") {  // planted
        if (shape_.tensor > 1) {
            config.reduction = config.tree().above(shape_.tensor).radices;  // a rank: one leaf
        } else if (recipe_.device.threads > 1) {
            config.reduction = {config.tree().leaves()};  // left to right, without the tree
        }
    }
    return config;
}

void TrainEngine::require_fits(const std::string& name, const model::ModelConfig& config,
                               const Layout& layout) const {
    const std::vector<std::string> problems =
        model::misfits(fmt::format("[model.{}]", name), config, layout.shape,
                       parallel::schedule_of(recipe_.parallel.schedule));
    require(problems.empty(), "[parallel] {}", fmt::join(problems, "\n[parallel] "));
}

const TrainEngine::Described& TrainEngine::described(const std::string& name) {
    const auto known = described_.find(name);
    if (known != described_.end()) return known->second;
    Described model{.source = recipe_.model_of(name).source(fs_)};
    if (model.source) require_tokens_of_the_run(*model.source);
    model.config = config_of(name, model.source);
    return described_.emplace(name, std::move(model)).first->second;
}

void TrainEngine::use_model_of(std::size_t stage) {
    const std::string& name = recipe_.stages[stage]->model;
    if (name == active_) return;
    const model::ModelConfig& config = described(name).config;
    models_.remove("policy");  // before the next takes its memory
    models_.add("policy", std::make_unique<model::Weights>(
                              *device_, config, model::Passes::forward_and_backward,
                              stages::model_axes(*mesh_, physical_options(recipe_))));
    active_ = name;
    held_.reset();
}

void TrainEngine::resume_stage(std::size_t stage) {
    use_model_of(stage);
    name_stage(stage);
}

void TrainEngine::begin_stage(std::size_t stage) {
    use_model_of(stage);
    loaded_.clear();
    const std::string& start_from = recipe_.stages[stage]->start_from;
    const auto named = recipe_.stage_named(start_from);
    if (start_from == "random") {
        recipe_.model_of(active_).initialise(policy(), environment_->seed, *compute_);
    } else if (!start_from.empty() && !named) {
        load(start_from);
    } else {
        const auto source = named ? named : recipe_.stage_before(stage);
        if (!source) load_initial();
        if (source && held_ != source) load(paths_.models() / recipe_.stages[*source]->name);
    }
    name_stage(stage);
}

void TrainEngine::name_stage(std::size_t stage) {
    held_ = stage;
    environment_->stage = recipe_.stages[stage]->name;
    environment_->data_before.clear();
    for (std::size_t i = 0; i < stage; ++i) {
        const NamedStage& before = *recipe_.stages[i];
        if (before.recipe.leaves_data) environment_->data_before.push_back(before.name);
    }
}

void TrainEngine::load_initial() {
    const Described& model = described(active_);
    if (model.source) {
        load(*model.source);
    } else {
        recipe_.model_of(active_).initialise(policy(), environment_->seed, *compute_);
    }
}

void TrainEngine::load(const io::Path& path) {
    load(matching_source(path, policy().config()));
}

void TrainEngine::load(const stages::ModelSource& source) {
    source.load(policy(), *compute_);
    loaded_ = fmt::format("{}: {}", source.path().string(), to_hex(source.fingerprint()));
}

stages::ModelSource TrainEngine::matching_source(const io::Path& path,
                                                 const model::ModelConfig& config) {
    auto source = stages::ModelSource::open(fs_, path);
    source.require_same_model(config);
    require_tokens_of_the_run(source);
    return source;
}

void TrainEngine::require_tokens_of_the_run(const stages::ModelSource& source) const {
    if (!source.tokenizer()) return;
    stages::require_same_tokens(*source.tokenizer(), source.path().string(), task_->tokenizer,
                                "the run");
}

std::vector<std::string> TrainEngine::problems_of_stage(std::size_t index) {
    const NamedStage& stage = *recipe_.stages[index];
    name_stage(index);
    std::vector<std::string> problems = stage.recipe.problems(*environment_);
    const auto add = [&](const std::string& key, const std::string& text) {
        problems.push_back(key + ": " + text);
    };
    try {
        (void)described(stage.model);
    } catch (const BadInput& problem) {  // a damaged file ends start-up with a code of its own
        add("model", problem.what());
        return problems;
    }
    if (stage.recipe.trains_mtp()) {
        const std::int64_t modules = described(stage.model).config.extra_layers;
        if (modules != 1) {
            add("mtp_loss_weight",
                fmt::format("[model.{}] has {} modules that predict further tokens "
                            "(num_nextn_predict_layers), and exactly one can be trained; set "
                            "mtp_loss_weight = 0 to leave them as they are",
                            stage.model, modules));
        }
    }
    if (stage.start_from.empty() || stage.start_from == "random") return problems;
    try {
        if (const auto source = recipe_.stage_named(stage.start_from)) {
            const std::vector<std::string> differ = model::differences(
                described(recipe_.stages[*source]->model).config, described(stage.model).config);
            if (!differ.empty()) {
                add("start_from", fmt::format("stage {} leaves a model of [model.{}], which is "
                                              "another than [model.{}]: {}",
                                              stage.start_from, recipe_.stages[*source]->model,
                                              stage.model, fmt::join(differ, "; ")));
            }
        } else if (!lies_in(stage.start_from, paths_.root)) {
            (void)matching_source(stage.start_from, described(stage.model).config);
        }
    } catch (const BadInput& problem) {
        add("start_from", problem.what());
    }
    return problems;
}

std::vector<StageMemory> TrainEngine::plan_memory(std::size_t first) {
    return plan_memory(first, layout());
}

std::vector<StageMemory> TrainEngine::plan_memory(std::size_t first, const Layout& layout) {
    return plan_memory(first, layout, environment_->physical.recompute);
}

TrainEngine::Fitted TrainEngine::fit_memory(std::size_t first, const Layout& layout,
                                            std::int64_t bytes) {
    Fitted fitted{environment_->physical.recompute, plan_memory(first, layout)};
    if (recipe_.update.recompute != "fit" || largest(fitted.plan).bytes() <= bytes) return fitted;
    std::int64_t most = 1;
    for (std::size_t i = first; i < recipe_.stages.size(); ++i)
        most = std::max(most, described(recipe_.stages[i]->model).config.layers);
    fitted = {most, plan_memory(first, layout, most)};
    // From one layer on, more of them need less.
    for (std::int64_t few = 1; few < fitted.recompute;) {
        const std::int64_t middle = (few + fitted.recompute) / 2;
        std::vector<StageMemory> plan = plan_memory(first, layout, middle);
        if (largest(plan).bytes() <= bytes) {
            fitted = {middle, std::move(plan)};
        } else {
            few = middle + 1;
        }
    }
    return fitted;
}

std::vector<StageMemory> TrainEngine::plan_memory(std::size_t first, const Layout& layout,
                                                  std::int64_t recompute) {
    stages::PhysicalOptions physical = environment_->physical;
    physical.recompute = recompute;
    physical.zero = layout.zero;
    std::vector<StageMemory> plan;
    for (std::size_t i = first; i < recipe_.stages.size(); ++i) {
        name_stage(i);
        const NamedStage& stage = *recipe_.stages[i];
        StageMemory memory = rehearse(stage.recipe, *environment_, layout.shape, physical,
                                      described(stage.model).config);
        memory.stage = stage.name;
        memory.kind = stage.kind;
        memory.model = stage.model;
        plan.push_back(std::move(memory));
    }
    held_.reset();
    return plan;
}

std::vector<Layout> TrainEngine::layouts(int ranks) {
    const auto fits = [&](const Layout& layout) {
        if (!parallel::check_shape(layout.shape, ranks).empty()) return false;
        try {
            for (const auto& stage : recipe_.stages)
                require_fits(stage->model, described(stage->model).config, layout);
        } catch (const BadInput&) {
            return false;
        }
        return true;
    };
    std::vector<Layout> found;
    const auto with_experts = [&](parallel::MeshShape shape, std::int64_t zero) {
        if (shape.data == 1 && zero != 1) return;  // nothing to share out
        for (shape.expert = 1; shape.expert <= shape.data * shape.tensor; ++shape.expert) {
            if (const Layout layout{shape, zero}; fits(layout)) found.push_back(layout);
        }
    };
    for (int split = 1; split <= ranks; ++split) {  // ranks that share one copy of the layers
        if (ranks % split != 0) continue;
        for (int pipeline = 1; pipeline <= split; ++pipeline) {
            if (split % pipeline != 0) continue;
            for (const std::int64_t zero : {0, 1, 3}) {
                with_experts(
                    {.data = ranks / split, .pipeline = pipeline, .tensor = split / pipeline},
                    zero);
            }
        }
    }
    return found;
}

void TrainEngine::check_stages(Session& session, std::size_t first) {
    session.start_together([&] {
        std::vector<std::string> problems;
        for (std::size_t i = first; i < recipe_.stages.size(); ++i) {
            for (const std::string& problem : problems_of_stage(i))
                problems.push_back(fmt::format("[stage.{}] {}", recipe_.stages[i]->name, problem));
        }
        held_.reset();
        if (!problems.empty()) throw Problems(problems);
    });
    session.start_together(
        [&] {
            std::int64_t context = policy().config().max_position;
            for (const auto& stage : recipe_.stages)
                context = std::min(context, described(stage->model).config.max_position);
            const std::vector<std::string> problems =
                stages::rows_too_long(*task_, context, session.rank(), session.size());
            if (!problems.empty()) throw Problems(problems);
        },
        Session::Concerns::run);
}

}  // namespace rankwise::app
