// What a run computes with: device, ranks, data and model, as its recipe asks for them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "io/fs.hpp"
#include "kernels/device.hpp"
#include "kernels/memory.hpp"
#include "parallel/mesh.hpp"
#include "src/app/memory_plan.hpp"
#include "src/app/run_directory.hpp"
#include "src/app/session.hpp"
#include "src/app/train_recipe.hpp"
#include "src/base/clock.hpp"
#include "src/base/log.hpp"
#include "src/model/model_set.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::app {

/// How the ranks of a run are shared out over axes, and what data ranks hold.
struct Layout {
    parallel::MeshShape shape;
    std::int64_t zero = 1;
};

class TrainEngine {
  public:
    /// What it is made for: runs, or plans alone, which need no memory for models.
    enum class Purpose : std::uint8_t { run, plan };

    using EnterPhase = std::function<void(std::string_view phase, std::int64_t step)>;

    /// Collective. The policy's weights have their sizes and no values yet.
    /// @param recipe  it, `paths`, `fs`, `log` and `clock` outlive this
    /// @param enter_phase  told of every phase of every stage
    /// @throws StartRefused on all ranks with what any of them cannot do.
    TrainEngine(const TrainRecipe& recipe, const RunPaths& paths, io::FileSystem& fs,
                Session& session, const Log& log, const Clock& clock, EnterPhase enter_phase,
                Purpose purpose = Purpose::run);
    TrainEngine(const TrainEngine&) = delete;
    TrainEngine& operator=(const TrainEngine&) = delete;

    /// Makes a stage's model the policy: weights of its sizes, without values if it was another.
    /// Only one is in memory: what the others have learnt rests in the run's models/STAGE.
    /// For a stage that goes on: its weights come from the checkpoint.
    void resume_stage(std::size_t stage);
    /// For one that begins: with the weights that it starts from.
    /// @throws BadInput, CorruptFile as ModelSource.
    void begin_stage(std::size_t stage);

    /// The weights that [model.NAME] itself has, whatever stages start from.
    void load_initial();
    /// What the stage's weights were read from, and its fingerprint: ranks that see other files
    /// have another text. Empty for random weights.
    [[nodiscard]] const std::string& loaded() const { return loaded_; }

    /// Collective. That the stages from `first` on can be built, that what they start from are such
    /// models, and that the data fit the context: for before the first of them computes.
    /// @throws StartRefused on all ranks with everything that is wrong.
    void check_stages(Session& session, std::size_t first);

    /// Most memory that each stage from `first` on needs, by kind: the stages are rehearsed on a
    /// device that computes nothing.
    [[nodiscard]] std::vector<StageMemory> plan_memory(std::size_t first);
    /// Of another layout than the recipe's.
    [[nodiscard]] std::vector<StageMemory> plan_memory(std::size_t first, const Layout& layout);
    /// A plan in which the activations of so many layers are computed again (model::StagePass).
    struct Fitted {
        std::int64_t recompute = 0;
        std::vector<StageMemory> plan;
    };
    /// What [update] recompute = fit means where a rank may take so many bytes: as few layers are
    /// computed again as will do, all where that is not enough either. Otherwise plan_memory().
    [[nodiscard]] Fitted fit_memory(std::size_t first, const Layout& layout, std::int64_t bytes);
    [[nodiscard]] Layout layout() const { return {shape_, recipe_.parallel.zero}; }
    /// For stages that are built from now on; the same on all ranks.
    void set_recompute(std::int64_t layers) { environment_->physical.recompute = layers; }
    /// Every layout of so many ranks that all models of the recipe can be split over.
    [[nodiscard]] std::vector<Layout> layouts(int ranks);
    /// Holds a stage's scratch memory in one piece before it begins.
    void reserve(const StageMemory& memory) { arena_->reserve(memory.reserve); }

    [[nodiscard]] const kernels::Device& device() const { return *device_; }
    [[nodiscard]] model::Compute& compute() { return *compute_; }
    [[nodiscard]] model::Weights& policy() { return models_.at("policy"); }
    [[nodiscard]] const parallel::MeshShape& shape() const { return shape_; }
    [[nodiscard]] const stages::Environment& environment() const { return *environment_; }

  private:
    [[nodiscard]] std::vector<StageMemory> plan_memory(std::size_t first, const Layout& layout,
                                                       std::int64_t recompute);
    void build(int ranks, Purpose purpose);
    /// A model of [model.NAME] as the recipe describes it.
    struct Described {
        std::optional<stages::ModelSource> source;  ///< nothing: random
        model::ModelConfig config;
    };
    [[nodiscard]] const Described& described(const std::string& model);
    [[nodiscard]] model::ModelConfig config_of(
        const std::string& name, const std::optional<stages::ModelSource>& source) const;
    /// @throws BadInput if a model cannot be laid out so.
    void require_fits(const std::string& name, const model::ModelConfig& config,
                      const Layout& layout) const;
    /// Tells stages their name, and those before them.
    void name_stage(std::size_t stage);
    void use_model_of(std::size_t stage);
    /// Fills the policy with the model at a path.
    void load(const io::Path& path);
    void load(const stages::ModelSource& source);
    /// The model at a path, if it is one that a stage's model can start from.
    [[nodiscard]] stages::ModelSource matching_source(const io::Path& path,
                                                      const model::ModelConfig& config);
    void require_tokens_of_the_run(const stages::ModelSource& source) const;
    [[nodiscard]] std::vector<std::string> problems_of_stage(std::size_t stage);

    const TrainRecipe& recipe_;
    const RunPaths& paths_;
    io::FileSystem& fs_;
    parallel::MeshShape shape_;
    std::unique_ptr<kernels::Device> planned_for_;  ///< of Purpose::plan: what `device_` is like
    std::unique_ptr<kernels::Device> device_;
    std::unique_ptr<kernels::Stream> stream_;
    std::unique_ptr<kernels::Arena> arena_;
    std::unique_ptr<model::Compute> compute_;
    std::map<std::string, Described> described_;  ///< by name of the model
    std::string active_;                          ///< the model that is the policy now
    std::string loaded_;
    std::optional<std::size_t> held_;  ///< the stage whose result the policy is
    std::unique_ptr<stages::TaskData> task_;
    model::ModelSet models_;
    std::unique_ptr<parallel::Mesh> mesh_;
    std::unique_ptr<stages::Environment> environment_;
};

}  // namespace rankwise::app
