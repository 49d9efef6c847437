// What a run computes with: device, ranks, data and model, as its recipe asks for them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "io/fs.hpp"
#include "kernels/device.hpp"
#include "kernels/memory.hpp"
#include "parallel/mesh.hpp"
#include "src/app/session.hpp"
#include "src/app/train_recipe.hpp"
#include "src/base/clock.hpp"
#include "src/base/log.hpp"
#include "src/model/model_set.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::app {

class TrainEngine {
  public:
    using EnterPhase = std::function<void(std::string_view phase, std::int64_t step)>;

    /// Collective. The policy's weights have their sizes and no values yet.
    /// @param recipe  it, `fs`, `log` and `clock` outlive this
    /// @param enter_phase  told of every phase of every stage
    /// @throws StartRefused on all ranks with what any of them cannot do.
    TrainEngine(const TrainRecipe& recipe, io::FileSystem& fs, Session& session, const Log& log,
                const Clock& clock, EnterPhase enter_phase);
    TrainEngine(const TrainEngine&) = delete;
    TrainEngine& operator=(const TrainEngine&) = delete;

    /// Gives the policy the weights that [model.policy] names.
    void load_policy();
    /// Gives it those that a stage starts from: "random", or a model of the same sizes.
    /// @throws BadInput, CorruptFile as ModelSource.
    void load_policy(const std::string& start_from);

    /// Collective. That the stages from `first` on can be built, that what they start from are such
    /// models, and that the data fit the context: for before the first of them computes.
    /// @param own  the run's directory: a model in it may be still to come
    /// @throws StartRefused on all ranks with everything that is wrong.
    void check_stages(Session& session, std::size_t first, const io::Path& own);

    [[nodiscard]] const kernels::Device& device() const { return *device_; }
    [[nodiscard]] model::Compute& compute() { return *compute_; }
    [[nodiscard]] model::Weights& policy() { return models_.at("policy"); }
    [[nodiscard]] const parallel::MeshShape& shape() const { return shape_; }
    [[nodiscard]] const stages::Environment& environment() const { return *environment_; }

  private:
    void build(int ranks);
    /// The model at a path, if it can take the policy's place.
    [[nodiscard]] stages::ModelSource matching_source(const std::string& path);

    const TrainRecipe& recipe_;
    io::FileSystem& fs_;
    parallel::MeshShape shape_;
    std::unique_ptr<kernels::Device> device_;
    std::unique_ptr<kernels::Stream> stream_;
    std::unique_ptr<kernels::Arena> arena_;
    std::unique_ptr<model::Compute> compute_;
    std::optional<stages::ModelSource> source_;  ///< of [model.policy]; nothing: random
    std::unique_ptr<stages::TaskData> task_;
    model::ModelSet models_;
    std::unique_ptr<parallel::Mesh> mesh_;
    std::unique_ptr<stages::Environment> environment_;
};

}  // namespace rankwise::app
