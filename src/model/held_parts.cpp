#include "src/model/held_parts.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace rankwise::model {

HeldParts held_parts(const ModelConfig& config, const DecoderParameters& parameters,
                     TensorPlace place, const PipelinePart& pipeline) {
    const int leaves = config.tree().leaves();
    HeldParts parts;
    for (ParameterId id = 0; id < parameters.table.count(); ++id) {
        const Parameter& parameter = parameters.table[id];
        Box box = part_box(parameter, leaves, place);
        if (!holds(pipeline, parameters, id)) box.rows = {};
        parts.boxes.push_back(box);
        parts.shapes.push_back({box.rows.size(), box.cols.size(), parameter.shape.vector});
        parts.counts.push_back(part_counts(parameter, leaves, place));
        parts.data_ranks.push_back(data_ranks_of(parameter, place));
    }
    return parts;
}

std::vector<parallel::ShardPiece> saved_rows(const HeldParts& parts, int data_ranks, int data_rank,
                                             const std::vector<bool>& left_out) {
    const parallel::ShardMap owners(parts.shapes, data_ranks, left_out, parts.data_ranks);
    std::vector<parallel::ShardPiece> pieces;
    for (const parallel::ShardPiece& piece : owners.pieces(data_rank)) {
        if (parts.counts[static_cast<std::size_t>(piece.parameter)]) pieces.push_back(piece);
    }
    return pieces;
}

std::vector<std::string> misfits(const std::string& who, const ModelConfig& config,
                                 const parallel::MeshShape& shape, parallel::Schedule schedule) {
    std::vector<std::string> problems;
    const std::vector<int> degrees = tensor_degrees(config);
    if (std::ranges::find(degrees, shape.tensor) == degrees.end()) {
        problems.push_back(fmt::format(
            "tensor = {}: {} has {} heads, {} KV heads and the reduction list {}, whose sums can "
            "be split over {} ranks",
            shape.tensor, who, config.heads, config.kv_heads,
            fmt::join(config.tree().radices, ", "), fmt::join(degrees, ", ")));
    }
    const std::vector<int> shares = expert_degrees(config, shape);
    if (std::ranges::find(shares, shape.expert) == shares.end()) {
        problems.push_back(
            fmt::format("expert = {}: the {} experts of {} can be shared out over {} ranks where "
                        "tensor = {} and data = {}",
                        shape.expert, config.experts.routed, who, fmt::join(shares, ", "),
                        shape.tensor, shape.data));
    }
    const int stretches = parallel::virtual_stages_of(schedule);
    const int most = std::max(1, most_pipeline_ranks(config, stretches));
    if (shape.pipeline > most) {
        problems.push_back(fmt::format(
            "pipeline = {}: {} has {} layers, which with schedule {} ({} on each rank at least) "
            "are enough for at most {} pipeline rank{}",
            shape.pipeline, who, config.layers, parallel::name_of(schedule), stretches, most,
            most == 1 ? "" : "s"));
    }
    return problems;
}

}  // namespace rankwise::model
