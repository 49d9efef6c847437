#include "src/model/pipeline_part.hpp"

#include <algorithm>

#include "parallel/pipeline_split.hpp"

namespace rankwise::model {
namespace {

/// Multiplications of a token in attention's matrices; of latent attention in their absorbed form.
std::int64_t attention_cost(const ModelConfig& config) {
    if (!config.latent.used()) return config.hidden * 2 * (config.q_size() + config.kv_size());
    const LatentConfig& latent = config.latent;
    const std::int64_t queries = latent.q_rank > 0
                                     ? latent.q_rank * (config.hidden + config.q_size())
                                     : config.hidden * config.q_size();
    const std::int64_t heads = config.heads * (latent.nope_dim + latent.value_dim);
    return queries + config.hidden * (latent.key_dim() + config.attention_size()) +
           heads * latent.kv_rank;
}

std::int64_t mlp_cost(const ModelConfig& config, std::int64_t layer) {
    if (!config.has_experts(layer)) return 3 * config.hidden * config.intermediate;
    const ExpertsConfig& experts = config.experts;
    const std::int64_t width =
        experts.chosen * experts.intermediate + experts.shared_intermediate();
    return config.hidden * (experts.routed + 3 * width);
}

parallel::StageCosts costs_of(const ModelConfig& config, bool with_modules) {
    parallel::StageCosts costs{.first = config.hidden, .last = config.hidden * config.vocab_size};
    for (std::int64_t layer = 0; layer < config.layers; ++layer)
        costs.layers.push_back(attention_cost(config) + mlp_cost(config, layer));
    const std::int64_t modules = with_modules ? config.extra_layers : 0;
    for (std::int64_t layer = config.layers; layer < config.layers + modules; ++layer) {
        costs.last += attention_cost(config) + mlp_cost(config, layer) +
                      config.hidden * (2 * config.hidden + config.vocab_size);
    }
    return costs;
}

}  // namespace

PipelineAxis pipeline_axis(const parallel::Mesh& mesh, parallel::Schedule schedule,
                           bool with_modules) {
    if (mesh.degree(parallel::Axis::pipeline) == 1) return {};
    return {&mesh.axis(parallel::Axis::pipeline), parallel::virtual_stages_of(schedule),
            with_modules};
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
        parallel::split_layers(costs_of(config, place.with_modules), stages);
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
    if (layer >= std::ssize(parameters.layers)) return part.has_head;
    if (layer >= 0) return part.holds_layer(layer);
    return id == parameters.embedding ? part.has_embedding : part.has_head;
}

int pipeline_holder(const ModelConfig& config, const DecoderParameters& parameters, ParameterId id,
                    const PipelinePlace& place) {
    for (int rank = 0; rank < place.degree; ++rank) {
        PipelinePlace other = place;
        other.rank = rank;
        const PipelinePart part = pipeline_part(config, other);
        if (holds(part, parameters, id)) return rank;
    }
    throw InternalError(fmt::format("no pipeline rank holds {}", parameters.table[id].name));
}

}  // namespace rankwise::model
