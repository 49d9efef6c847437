#include "src/model/pipeline_part.hpp"

#include <algorithm>

#include "parallel/pipeline_split.hpp"

namespace rankwise::model {
namespace {

parallel::StageCosts costs_of(const ModelConfig& config) {
    return {.layer = config.hidden *
                     (2 * config.q_size() + 2 * config.kv_size() + 3 * config.intermediate),
            .first = config.hidden,
            .last = config.hidden * config.vocab_size};
}

}  // namespace

PipelineAxis pipeline_axis(const parallel::Mesh& mesh, parallel::Schedule schedule) {
    if (mesh.degree(parallel::Axis::pipeline) == 1) return {};
    return {&mesh.axis(parallel::Axis::pipeline), parallel::virtual_stages_of(schedule)};
}

int most_pipeline_ranks(const ModelConfig& config, int virtual_stages) {
    return narrow<int>(config.layers / virtual_stages);
}

bool PipelinePart::holds_layer(std::int64_t layer) const {
    return std::any_of(stages.begin(), stages.end(),
                       [&](const LayerStage& stage) { return stage.layers.contains(layer); });
}

std::int64_t PipelinePart::layer_count() const {
    std::int64_t count = 0;
    for (const LayerStage& stage : stages) count += stage.layers.size();
    return count;
}

std::int64_t PipelinePart::local_layer(std::int64_t layer) const {
    std::int64_t before = 0;
    for (const LayerStage& stage : stages) {
        if (stage.layers.contains(layer)) return before + layer - stage.layers.begin;
        before += stage.layers.size();
    }
    throw InternalError(fmt::format("pipeline rank {} was asked for layer {}, which it has not",
                                    place.rank, layer));
}

PipelinePart pipeline_part(const ModelConfig& config, const PipelinePlace& place) {
    const std::int64_t stages = std::int64_t{place.degree} * place.virtual_stages;
    ensure(stages <= config.layers, "a model of {} layers in {} stages", config.layers, stages);
    const std::vector<Range> ranges =
        parallel::split_layers(config.layers, stages, costs_of(config));
    PipelinePart part{.place = place, .stages = {}};
    for (std::int64_t stage = place.rank; stage < stages; stage += place.degree) {
        part.stages.push_back({.layers = ranges[static_cast<std::size_t>(stage)],
                               .first = stage == 0,
                               .last = stage + 1 == stages});
    }
    part.has_head = place.rank == part.last_rank();
    part.has_embedding = config.tied ? part.has_head : part.is_first();
    return part;
}

bool holds(const PipelinePart& part, const DecoderParameters& parameters, ParameterId id) {
    const int layer = parameters.table[id].layer;
    if (layer >= 0) return part.holds_layer(layer);
    return id == parameters.embedding ? part.has_embedding : part.has_head;
}

int pipeline_holder(const ModelConfig& config, const DecoderParameters& parameters, ParameterId id,
                    const PipelinePlace& place) {
    for (int rank = 0; rank < place.degree; ++rank) {
        const PipelinePart part = pipeline_part(config, {place.degree, rank, place.virtual_stages});
        if (holds(part, parameters, id)) return rank;
    }
    throw InternalError(fmt::format("no pipeline rank holds {}", parameters.table[id].name));
}

}  // namespace rankwise::model
