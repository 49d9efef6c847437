// What one rank of the pipeline axis holds of a decoder: consecutive layers, once or several times.
#pragma once

#include <vector>

#include "parallel/mesh.hpp"
#include "parallel/pipeline_schedule.hpp"
#include "src/model/parameters.hpp"

namespace rankwise::model {

/// The ranks that layers are dealt to; null: this rank has them all. Outlives its users.
struct PipelineAxis {
    parallel::Communicator* axis = nullptr;
    int virtual_stages = 1;     ///< consecutive layers that a rank has, so many times
    bool with_modules = false;  ///< balanced with the modules that predict further, which train too
};

/// That of a mesh.
[[nodiscard]] PipelineAxis pipeline_axis(const parallel::Mesh& mesh, parallel::Schedule schedule,
                                         bool with_modules = false);

/// A rank's place on the pipeline axis.
struct PipelinePlace {
    int degree = 1;
    int rank = 0;
    int virtual_stages = 1;
    bool with_modules = false;
};

/// The highest degree of the pipeline axis that a model has layers enough for.
[[nodiscard]] int most_pipeline_ranks(const ModelConfig& config, int virtual_stages);

/// Consecutive layers, and what comes before and after them.
struct LayerStage {
    Range layers;
    bool first = false;  ///< begins with the embedding's rows
    bool last = false;   ///< ends with final norm and head
};

/// Stage v of the model's P V is virtual stage v / P of rank v mod P; stages are balanced by the
/// multiplications of a token, embedding and head counted, and behind the head (where they train)
/// the modules that predict further, which each are a layer and go through the head again. Rank 0
/// has the embedding and the last rank final norm and head. A tied embedding lies on the last rank
/// alone, which looks rows up for the first: nobody holds a second [vocab, hidden].
struct PipelinePart {
    PipelinePlace place;
    std::vector<LayerStage> stages;  ///< of each virtual stage
    bool has_embedding = true;
    bool has_head = true;

    [[nodiscard]] bool split() const { return place.degree > 1; }
    [[nodiscard]] bool is_first() const { return place.rank == 0; }
    [[nodiscard]] int next() const { return (place.rank + 1) % place.degree; }
    [[nodiscard]] int previous() const { return (place.rank + place.degree - 1) % place.degree; }
    [[nodiscard]] int last_rank() const { return place.degree - 1; }
    /// Whether rows of the embedding come from the last rank.
    [[nodiscard]] bool looks_up_elsewhere() const { return is_first() && !has_embedding; }
    [[nodiscard]] bool looks_up_for_first() const {
        return split() && has_embedding && !is_first();
    }

    [[nodiscard]] bool holds_layer(std::int64_t layer) const;
    /// Layers that it holds, and the place of one of them among these.
    [[nodiscard]] std::int64_t layer_count() const;
    [[nodiscard]] std::int64_t local_layer(std::int64_t layer) const;
};

/// @throws InternalError if there are more virtual stages than layers.
[[nodiscard]] PipelinePart pipeline_part(const ModelConfig& config, const PipelinePlace& place);

/// Whether a rank holds a parameter.
[[nodiscard]] bool holds(const PipelinePart& part, const DecoderParameters& parameters,
                         ParameterId id);

/// The lowest rank of the axis that holds a parameter.
[[nodiscard]] int pipeline_holder(const ModelConfig& config, const DecoderParameters& parameters,
                                  ParameterId id, const PipelinePlace& place);

/// Channels of the pipeline axis. Activations and gradients of each virtual stage's input are
/// queues of their own.
inline constexpr parallel::Channel kStreamChannel{1};
inline constexpr parallel::Channel kLookupChannel{2};
inline constexpr parallel::Channel kTokenChannel{3};
inline constexpr parallel::Channel kWorkChannel{4};
inline constexpr parallel::Channel kPromptChannel{5};
[[nodiscard]] inline parallel::Channel gradient_channel(int virtual_stage) {
    return {6 + virtual_stage};
}

}  // namespace rankwise::model
