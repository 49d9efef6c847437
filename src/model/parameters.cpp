#include "src/model/parameters.hpp"

namespace rankwise::model {
namespace {

/// Leaf in which KV head `kv` counts: that of the first of its query heads.
int first_leaf(const ModelConfig& config, int leaves, std::int64_t kv) {
    const std::int64_t first_head = kv * (config.heads / config.kv_heads);
    const std::int64_t heads_a_leaf = config.heads / leaves;
    return narrow<int>(first_head / heads_a_leaf);
}

}  // namespace

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

LayerContractions layer_contractions(const ModelConfig& config) {
    const ReductionTree tree = config.tree();
    const int leaves = tree.leaves();
    const std::int64_t q_size = config.q_size();
    const std::int64_t kv_size = config.kv_size();
    const std::int64_t head_dim = config.head_dim;
    const std::int64_t intermediate = config.intermediate;

    LayerContractions out;
    out.hidden = Contraction::straight(config.hidden);
    out.attention = Contraction::of_leaves(tree, q_size, head_dim);
    out.intermediate = Contraction::of_leaves(tree, intermediate);
    out.heads = Contraction::of_leaves(tree, config.heads, 1);

    out.kv_heads = {tree, std::vector<std::vector<Range>>(static_cast<std::size_t>(leaves))};
    out.qkv_rows = out.kv_heads;
    out.gate_up_rows = out.kv_heads;
    for (std::int64_t kv = 0; kv < config.kv_heads; ++kv) {
        auto& leaf = out.kv_heads.leaves[static_cast<std::size_t>(first_leaf(config, leaves, kv))];
        if (!leaf.empty() && leaf.back().end == kv) {
            leaf.back().end = kv + 1;
        } else {
            leaf.push_back({kv, kv + 1});
        }
    }
    for (int b = 0; b < leaves; ++b) {
        const auto at = static_cast<std::size_t>(b);
        out.qkv_rows.leaves[at] = out.attention.leaves[at];
        for (const std::int64_t begin : {q_size, q_size + kv_size}) {  // k, then v
            for (const Range heads : out.kv_heads.leaves[at]) {
                out.qkv_rows.leaves[at].push_back(
                    {begin + heads.begin * head_dim, begin + heads.end * head_dim});
            }
        }
        for (const Range range : out.intermediate.leaves[at]) {
            out.gate_up_rows.leaves[at].push_back(range);
            out.gate_up_rows.leaves[at].push_back(
                {intermediate + range.begin, intermediate + range.end});
        }
    }
    return out;
}

std::vector<Range> vocabulary_leaves(const ModelConfig& config) {
    return leaf_ranges(config.vocab_size, config.tree().leaves());
}

}  // namespace rankwise::model
