#include "src/model/parameters.hpp"

#include <algorithm>

namespace rankwise::model {
namespace {

/// Leaf in which KV head `kv` counts: that of the first of its query heads.
int first_leaf(const ModelConfig& config, int leaves, std::int64_t kv) {
    const std::int64_t first_head = kv * (config.heads / config.kv_heads);
    const std::int64_t heads_a_leaf = config.heads / leaves;
    return narrow<int>(first_head / heads_a_leaf);
}

/// Parts that a parameter's split dimension is cut into.
int parts_of(const Parameter& parameter, int leaves) {
    return parameter.leaf_parts > 0 ? narrow<int>(parameter.leaf_parts) : leaves;
}

/// A rank's elements of a dimension that is cut into `parts`: as many parts for each rank, or
/// beyond one part a rank the same part for several.
Range part_range(std::int64_t size, int parts, std::int64_t unit, TensorPlace place) {
    const int first = place.rank * parts / place.degree;
    const int last = std::max(first, (place.rank + 1) * parts / place.degree - 1);
    return {leaf_range(size, parts, first, unit).begin, leaf_range(size, parts, last, unit).end};
}

/// The ranges of a leaf, in a matrix that begins with element `origin`.
std::vector<Range> moved(std::vector<Range> ranges, std::int64_t origin) {
    for (Range& range : ranges) range = {range.begin - origin, range.end - origin};
    return ranges;
}

}  // namespace

std::vector<int> tensor_degrees(const ModelConfig& config) {
    const std::vector<int> all = config.tree().tensor_degrees();
    std::vector<int> degrees;
    for (const int degree : all) {
        const bool spreads = config.kv_heads % degree == 0;
        // Ranks that hold the same KV head add its gradients by the tree above them.
        const bool repeats = degree % config.kv_heads == 0 &&
                             std::find(all.begin(), all.end(), config.kv_heads) != all.end();
        if (spreads || repeats) degrees.push_back(degree);
    }
    return degrees;
}

Part part_of(const ModelConfig& config, TensorPlace place) {
    const std::vector<int> degrees = tensor_degrees(config);
    ensure(std::find(degrees.begin(), degrees.end(), place.degree) != degrees.end(),
           "a model of {} heads on {} tensor ranks", config.heads, place.degree);
    const int leaves = config.tree().leaves();
    const std::int64_t heads = config.heads / place.degree;
    const std::int64_t group = config.heads / config.kv_heads;
    Part part{.place = place, .head_dim = config.head_dim};
    part.leaves = config.tree().leaves_of(place.degree, place.rank);
    part.heads = {place.rank * heads, (place.rank + 1) * heads};
    part.kv_heads = {part.heads.begin / group, ceil_div(part.heads.end, group)};
    part.first_holder = part.heads.begin % group == 0;
    part.intermediate = part_range(config.intermediate, leaves, 16, place);
    part.vocabulary = part_range(config.vocab_size, leaves, 16, place);
    return part;
}

Box part_box(const Parameter& parameter, int leaves, TensorPlace place) {
    Box box = Box::whole(parameter.shape);
    if (parameter.split == TensorSplit::none) return box;
    const bool by_rows = parameter.split == TensorSplit::rows && !parameter.shape.vector;
    Range& range = by_rows ? box.rows : box.cols;
    range = part_range(range.size(), parts_of(parameter, leaves), parameter.leaf_unit, place);
    return box;
}

bool part_counts(const Parameter& parameter, int leaves, TensorPlace place) {
    if (parameter.split == TensorSplit::none) return place.rank == 0;
    const int parts = parts_of(parameter, leaves);
    return parts >= place.degree || place.rank * parts % place.degree == 0;
}

DecoderParameters decoder_parameters(const ModelConfig& config) {
    DecoderParameters parameters;
    ParameterTable& table = parameters.table;
    const std::int64_t hidden = config.hidden;
    const std::int64_t head_dim = config.head_dim;
    const int leaves = config.tree().leaves();
    const std::int64_t kv_parts = std::min<std::int64_t>(leaves, config.kv_heads);

    const auto matrix = [&](const std::string& name, std::int64_t rows, std::int64_t cols,
                            int layer, TensorSplit split, std::int64_t unit = 16,
                            std::int64_t parts = 0) {
        return table.add({.name = name + ".weight",
                          .shape = Shape::matrix(rows, cols),
                          .split = split,
                          .leaf_unit = unit,
                          .leaf_parts = parts,
                          .layer = layer});
    };
    const auto vector = [&](const std::string& name, std::int64_t size, int layer,
                            TensorSplit split, std::int64_t unit = 16, std::int64_t parts = 0) {
        return table.add({.name = name,
                          .shape = Shape::of_vector(size),
                          .split = split,
                          .leaf_unit = unit,
                          .leaf_parts = parts,
                          .layer = layer,
                          .decay = false});
    };

    parameters.embedding =
        matrix("model.embed_tokens", config.vocab_size, hidden, -1, TensorSplit::rows);
    for (int layer = 0; layer < config.layers; ++layer) {
        const std::string at = fmt::format("model.layers.{}.", layer);
        const std::string attention = at + "self_attn.";
        LayerIds ids;
        ids.input_norm = vector(at + "input_layernorm.weight", hidden, layer, TensorSplit::none);
        ids.q = matrix(attention + "q_proj", config.q_size(), hidden, layer, TensorSplit::rows,
                       head_dim);
        if (config.qkv_bias) {
            ids.q_bias = vector(attention + "q_proj.bias", config.q_size(), layer,
                                TensorSplit::rows, head_dim);
        }
        ids.k = matrix(attention + "k_proj", config.kv_size(), hidden, layer, TensorSplit::rows,
                       head_dim, kv_parts);
        if (config.qkv_bias) {
            ids.k_bias = vector(attention + "k_proj.bias", config.kv_size(), layer,
                                TensorSplit::rows, head_dim, kv_parts);
        }
        ids.v = matrix(attention + "v_proj", config.kv_size(), hidden, layer, TensorSplit::rows,
                       head_dim, kv_parts);
        if (config.qkv_bias) {
            ids.v_bias = vector(attention + "v_proj.bias", config.kv_size(), layer,
                                TensorSplit::rows, head_dim, kv_parts);
        }
        if (config.qk_norm) {
            ids.q_norm = vector(attention + "q_norm.weight", head_dim, layer, TensorSplit::none);
            ids.k_norm = vector(attention + "k_norm.weight", head_dim, layer, TensorSplit::none);
        }
        ids.o = matrix(attention + "o_proj", hidden, config.q_size(), layer, TensorSplit::columns,
                       head_dim);
        if (config.o_bias)
            ids.o_bias = vector(attention + "o_proj.bias", hidden, layer, TensorSplit::none);
        ids.post_norm =
            vector(at + "post_attention_layernorm.weight", hidden, layer, TensorSplit::none);
        const std::string mlp = at + "mlp.";
        ids.gate = matrix(mlp + "gate_proj", config.intermediate, hidden, layer, TensorSplit::rows);
        ids.up = matrix(mlp + "up_proj", config.intermediate, hidden, layer, TensorSplit::rows);
        ids.down =
            matrix(mlp + "down_proj", hidden, config.intermediate, layer, TensorSplit::columns);
        if (config.mlp_bias) {
            ids.gate_bias =
                vector(mlp + "gate_proj.bias", config.intermediate, layer, TensorSplit::rows);
            ids.up_bias =
                vector(mlp + "up_proj.bias", config.intermediate, layer, TensorSplit::rows);
            ids.down_bias = vector(mlp + "down_proj.bias", hidden, layer, TensorSplit::none);
        }
        parameters.layers.push_back(ids);
    }
    parameters.final_norm = vector("model.norm.weight", hidden, -1, TensorSplit::none);
    parameters.head = config.tied
                          ? parameters.embedding
                          : matrix("lm_head", config.vocab_size, hidden, -1, TensorSplit::rows);
    return parameters;
}

LayerContractions layer_contractions(const ModelConfig& config, const Part& part) {
    const ReductionTree whole = config.tree();
    const ReductionTree tree = whole.below(part.place.degree);
    const std::int64_t q_size = part.q_size();
    const std::int64_t kv_size = part.kv_size();
    const std::int64_t head_dim = config.head_dim;
    const std::int64_t intermediate = part.intermediate.size();

    // Over the whole model's leaves; then this rank's, counted from where its part begins.
    const Contraction attention = Contraction::of_leaves(whole, config.q_size(), head_dim);
    const Contraction mlp = Contraction::of_leaves(whole, config.intermediate);
    const Contraction heads = Contraction::of_leaves(whole, config.heads, 1);
    std::vector<std::vector<Range>> kv_heads(static_cast<std::size_t>(whole.leaves()));
    for (std::int64_t kv = 0; kv < config.kv_heads; ++kv) {
        auto& leaf = kv_heads[static_cast<std::size_t>(first_leaf(config, whole.leaves(), kv))];
        if (!leaf.empty() && leaf.back().end == kv) {
            leaf.back().end = kv + 1;
        } else {
            leaf.push_back({kv, kv + 1});
        }
    }
    LayerContractions out;
    out.hidden = Contraction::straight(config.hidden);
    for (Contraction* each : {&out.attention, &out.intermediate, &out.heads, &out.kv_heads,
                              &out.qkv_rows, &out.gate_up_rows})
        each->tree = tree;
    for (std::int64_t b = part.leaves.begin; b < part.leaves.end; ++b) {
        const auto at = static_cast<std::size_t>(b);
        out.attention.leaves.push_back(moved(attention.leaves[at], part.heads.begin * head_dim));
        out.intermediate.leaves.push_back(moved(mlp.leaves[at], part.intermediate.begin));
        out.heads.leaves.push_back(moved(heads.leaves[at], part.heads.begin));
        out.kv_heads.leaves.push_back(moved(kv_heads[at], part.kv_heads.begin));
        std::vector<Range>& rows = out.qkv_rows.leaves.emplace_back(out.attention.leaves.back());
        for (const std::int64_t begin : {q_size, q_size + kv_size}) {  // k, then v
            for (const Range range : out.kv_heads.leaves.back())
                rows.push_back({begin + range.begin * head_dim, begin + range.end * head_dim});
        }
        std::vector<Range>& gate_up = out.gate_up_rows.leaves.emplace_back();
        for (const Range range : out.intermediate.leaves.back()) {
            gate_up.push_back(range);
            gate_up.push_back({intermediate + range.begin, intermediate + range.end});
        }
    }
    return out;
}

std::vector<Range> vocabulary_leaves(const ModelConfig& config, const Part& part) {
    const std::vector<Range> all = leaf_ranges(config.vocab_size, config.tree().leaves());
    return {all.begin() + part.leaves.begin, all.begin() + part.leaves.end};
}

}  // namespace rankwise::model
