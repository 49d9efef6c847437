#include "src/model/parameters.hpp"

#include <algorithm>
#include <utility>

#include "parallel/expert_dispatch.hpp"

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

/// A leaf of the rows of gate and up stacked, from a leaf of their columns of `size`.
std::vector<Range> gate_then_up(const std::vector<Range>& leaf, std::int64_t size) {
    std::vector<Range> rows;
    for (const Range range : leaf) {
        rows.push_back(range);
        rows.push_back({size + range.begin, size + range.end});
    }
    return rows;
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

std::vector<int> expert_degrees(const ModelConfig& config, const parallel::MeshShape& shape) {
    std::vector<int> degrees{1};
    for (int degree = 2; degree < shape.tensor; ++degree) {
        if (shape.tensor % degree == 0 && degree <= config.experts.routed)
            degrees.push_back(degree);
    }
    for (int data = 1; data <= shape.data; ++data) {
        const int degree = data * shape.tensor;
        if (degree > 1 && shape.data % data == 0 && degree <= config.experts.routed)
            degrees.push_back(degree);
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
    Part part{.place = place, .head_dim = config.head_dim, .value_dim = config.value_dim()};
    part.leaves = config.tree().leaves_of(place.degree, place.rank);
    part.heads = {place.rank * heads, (place.rank + 1) * heads};
    part.kv_heads = {part.heads.begin / group, ceil_div(part.heads.end, group)};
    part.first_holder = part.heads.begin % group == 0;
    part.intermediate = part_range(config.intermediate, leaves, 16, place);
    part.experts = parallel::experts_of(config.experts.routed, place.experts, place.expert_rank);
    part.shared = part_range(config.experts.shared_intermediate(), leaves, 16, place);
    part.vocabulary = part_range(config.vocab_size, leaves, 16, place);
    return part;
}

namespace {

bool is_shared_out(const Parameter& parameter, TensorPlace place) {
    return parameter.expert >= 0 && place.experts > 1;
}

int holder_of(const Parameter& parameter, TensorPlace place) {
    return parallel::holder_of_expert(parameter.experts, place.experts, parameter.expert);
}

}  // namespace

parallel::DataRanks data_ranks_of(const Parameter& parameter, TensorPlace place) {
    if (!is_shared_out(parameter, place) || place.experts <= place.degree) return {};
    return {.first = holder_of(parameter, place) / place.degree,
            .stride = place.experts / place.degree};
}

Box part_box(const Parameter& parameter, int leaves, TensorPlace place) {
    Box box = Box::whole(parameter.shape);
    const int columns = place.tensor_ranks_of_group();
    if (is_shared_out(parameter, place) &&
        holder_of(parameter, place) % columns != place.rank % columns)
        box.rows = {};
    if (parameter.split == TensorSplit::none) return box;
    const bool by_rows = parameter.split == TensorSplit::rows && !parameter.shape.vector;
    Range& range = by_rows ? box.rows : box.cols;
    range = part_range(range.size(), parts_of(parameter, leaves), parameter.leaf_unit, place);
    return box;
}

bool part_counts(const Parameter& parameter, int leaves, TensorPlace place) {
    if (is_shared_out(parameter, place)) return place.rank < place.tensor_ranks_of_group();
    if (parameter.split == TensorSplit::none) return place.rank == 0;
    const int parts = parts_of(parameter, leaves);
    return parts >= place.degree || place.rank * parts % place.degree == 0;
}

namespace {

/// Adds the parameters of a decoder to its table, part by part.
class TableMaker {
  public:
    TableMaker(const ModelConfig& config, ParameterTable& table)
        : config_(config),
          table_(table),
          kv_parts_(std::min<std::int64_t>(config.tree().leaves(), config.kv_heads)) {}

    /// What follows belongs to this layer (-1: to none), and is trained or not.
    void in_layer(int layer, bool trained = true) {
        layer_ = layer;
        trained_ = trained;
    }

    ParameterId matrix(const std::string& name, std::int64_t rows, std::int64_t cols,
                       TensorSplit split, std::int64_t unit = 16, std::int64_t parts = 0) {
        return table_.add({.name = name + ".weight",
                           .shape = Shape::matrix(rows, cols),
                           .split = split,
                           .leaf_unit = unit,
                           .leaf_parts = parts,
                           .layer = layer_,
                           .expert = expert_,
                           .experts = expert_ < 0 ? 0 : narrow<int>(config_.experts.routed),
                           .trained = trained_});
    }
    ParameterId vector(const std::string& name, std::int64_t size, TensorSplit split,
                       std::int64_t unit = 16, std::int64_t parts = 0) {
        return table_.add({.name = name,
                           .shape = Shape::of_vector(size),
                           .split = split,
                           .leaf_unit = unit,
                           .leaf_parts = parts,
                           .layer = layer_,
                           .decay = false,
                           .trained = trained_});
    }

    /// All of one layer, whose names begin with `at`.
    LayerIds layer(const std::string& at, bool experts) {
        LayerIds ids;
        ids.input_norm = vector(at + "input_layernorm.weight", config_.hidden, TensorSplit::none);
        if (config_.latent.used()) {
            latent_attention(at + "self_attn.", ids);
        } else {
            attention(at + "self_attn.", ids);
        }
        ids.post_norm =
            vector(at + "post_attention_layernorm.weight", config_.hidden, TensorSplit::none);
        if (experts) {
            mixture(at + "mlp.", ids);
        } else {
            dense_mlp(at + "mlp.", ids);
        }
        return ids;
    }

  private:
    void attention(const std::string& at, LayerIds& ids) {
        const std::int64_t hidden = config_.hidden;
        const std::int64_t head_dim = config_.head_dim;
        const std::int64_t q_size = config_.q_size();
        const std::int64_t kv_size = config_.kv_size();
        ids.q = matrix(at + "q_proj", q_size, hidden, TensorSplit::rows, head_dim);
        if (config_.qkv_bias)
            ids.q_bias = vector(at + "q_proj.bias", q_size, TensorSplit::rows, head_dim);
        ids.k = matrix(at + "k_proj", kv_size, hidden, TensorSplit::rows, head_dim, kv_parts_);
        if (config_.qkv_bias)
            ids.k_bias =
                vector(at + "k_proj.bias", kv_size, TensorSplit::rows, head_dim, kv_parts_);
        ids.v = matrix(at + "v_proj", kv_size, hidden, TensorSplit::rows, head_dim, kv_parts_);
        if (config_.qkv_bias)
            ids.v_bias =
                vector(at + "v_proj.bias", kv_size, TensorSplit::rows, head_dim, kv_parts_);
        if (config_.qk_norm) {
            ids.q_norm = vector(at + "q_norm.weight", head_dim, TensorSplit::none);
            ids.k_norm = vector(at + "k_norm.weight", head_dim, TensorSplit::none);
        }
        ids.o = matrix(at + "o_proj", hidden, q_size, TensorSplit::columns, head_dim);
        if (config_.o_bias) ids.o_bias = vector(at + "o_proj.bias", hidden, TensorSplit::none);
    }

    void latent_attention(const std::string& at, LayerIds& ids) {
        const LatentConfig& latent = config_.latent;
        const std::int64_t hidden = config_.hidden;
        const std::int64_t q_size = config_.q_size();
        if (latent.q_rank > 0) {
            ids.q_a = matrix(at + "q_a_proj", latent.q_rank, hidden, TensorSplit::none);
            ids.q_a_norm = vector(at + "q_a_layernorm.weight", latent.q_rank, TensorSplit::none);
            ids.q_b =
                matrix(at + "q_b_proj", q_size, latent.q_rank, TensorSplit::rows, config_.head_dim);
        } else {
            ids.q = matrix(at + "q_proj", q_size, hidden, TensorSplit::rows, config_.head_dim);
        }
        ids.kv_a = matrix(at + "kv_a_proj_with_mqa", latent.key_dim(), hidden, TensorSplit::none);
        ids.kv_a_norm = vector(at + "kv_a_layernorm.weight", latent.kv_rank, TensorSplit::none);
        const std::int64_t unit = latent.nope_dim + latent.value_dim;
        ids.kv_b =
            matrix(at + "kv_b_proj", config_.heads * unit, latent.kv_rank, TensorSplit::rows, unit);
        ids.o = matrix(at + "o_proj", hidden, config_.attention_size(), TensorSplit::columns,
                       latent.value_dim);
    }

    MlpIds mlp(const std::string& at, std::int64_t intermediate, bool split) {
        const auto cut = [&](TensorSplit how) { return split ? how : TensorSplit::none; };
        return {
            .gate = matrix(at + "gate_proj", intermediate, config_.hidden, cut(TensorSplit::rows)),
            .up = matrix(at + "up_proj", intermediate, config_.hidden, cut(TensorSplit::rows)),
            .down =
                matrix(at + "down_proj", config_.hidden, intermediate, cut(TensorSplit::columns))};
    }

    void dense_mlp(const std::string& at, LayerIds& ids) {
        const MlpIds dense = mlp(at, config_.intermediate, true);
        ids.gate = dense.gate;
        ids.up = dense.up;
        ids.down = dense.down;
        if (!config_.mlp_bias) return;
        ids.gate_bias = vector(at + "gate_proj.bias", config_.intermediate, TensorSplit::rows);
        ids.up_bias = vector(at + "up_proj.bias", config_.intermediate, TensorSplit::rows);
        ids.down_bias = vector(at + "down_proj.bias", config_.hidden, TensorSplit::none);
    }

    /// Router, routed experts (never split over tensor ranks, N4), shared experts.
    void mixture(const std::string& at, LayerIds& ids) {
        const ExpertsConfig& experts = config_.experts;
        ids.router = matrix(at + "gate", experts.routed, config_.hidden, TensorSplit::none);
        if (experts.has_bias()) {
            const bool was = std::exchange(trained_, false);
            ids.router_bias =
                vector(at + "gate.e_score_correction_bias", experts.routed, TensorSplit::none);
            trained_ = was;
        }
        for (int expert = 0; expert < experts.routed; ++expert) {
            expert_ = expert;
            ids.experts.push_back(
                mlp(fmt::format("{}experts.{}.", at, expert), experts.intermediate, false));
        }
        expert_ = -1;
        if (experts.shared > 0)
            ids.shared = mlp(at + "shared_experts.", experts.shared_intermediate(), true);
    }

    const ModelConfig& config_;
    ParameterTable& table_;
    std::int64_t kv_parts_;
    int layer_ = -1;
    int expert_ = -1;
    bool trained_ = true;
};

/// Layers that predict further tokens: a layer with two norms, the matrix that joins what they
/// give, and copies of embedding and head, which belong to no layer.
std::vector<MtpIds> add_extra_layers(const ModelConfig& config, TableMaker& make) {
    std::vector<MtpIds> modules;
    for (std::int64_t extra = 0; extra < config.extra_layers; ++extra) {
        const int index = narrow<int>(config.layers + extra);
        const std::string at = fmt::format("model.layers.{}.", index);
        const std::int64_t hidden = config.hidden;
        MtpIds& ids = modules.emplace_back();
        make.in_layer(-1, false);
        ids.embedding_copy =
            make.matrix(at + "embed_tokens", config.vocab_size, hidden, TensorSplit::rows);
        make.in_layer(index, false);
        ids.embedding_norm = make.vector(at + "enorm.weight", hidden, TensorSplit::none);
        ids.hidden_norm = make.vector(at + "hnorm.weight", hidden, TensorSplit::none);
        ids.projection = make.matrix(at + "eh_proj", hidden, 2 * hidden, TensorSplit::none);
        ids.layer = make.layer(at, config.has_experts(index));
        ids.head_norm = make.vector(at + "shared_head.norm.weight", hidden, TensorSplit::none);
        make.in_layer(-1, false);
        ids.head_copy =
            make.matrix(at + "shared_head.head", config.vocab_size, hidden, TensorSplit::rows);
    }
    return modules;
}

}  // namespace

DecoderParameters decoder_parameters(const ModelConfig& config) {
    DecoderParameters parameters;
    TableMaker make(config, parameters.table);
    parameters.embedding =
        make.matrix("model.embed_tokens", config.vocab_size, config.hidden, TensorSplit::rows);
    for (int layer = 0; layer < config.layers; ++layer) {
        make.in_layer(layer);
        parameters.layers.push_back(
            make.layer(fmt::format("model.layers.{}.", layer), config.has_experts(layer)));
    }
    make.in_layer(-1);
    parameters.final_norm = make.vector("model.norm.weight", config.hidden, TensorSplit::none);
    parameters.head =
        config.tied ? parameters.embedding
                    : make.matrix("lm_head", config.vocab_size, config.hidden, TensorSplit::rows);
    parameters.mtp = add_extra_layers(config, make);
    return parameters;
}

std::vector<bool> DecoderParameters::frozen(bool train_mtp) const {
    std::vector<bool> all;
    for (const Parameter& parameter : table.rows()) {
        const bool of_module = parameter.layer >= std::ssize(layers);
        all.push_back(!parameter.trained && !(train_mtp && of_module));
    }
    if (!train_mtp) return all;
    for (const MtpIds& module : mtp) {
        if (module.layer.router_bias >= 0)
            all[static_cast<std::size_t>(module.layer.router_bias)] = true;
    }
    return all;
}

LayerContractions layer_contractions(const ModelConfig& config, const Part& part) {
    const ReductionTree whole = config.tree();
    const ReductionTree tree = whole.below(part.place.degree);
    const std::int64_t q_size = part.q_size();
    const std::int64_t kv_size = part.kv_size();
    const std::int64_t head_dim = config.head_dim;

    // Over the whole model's leaves; then this rank's, counted from where its part begins.
    const std::int64_t value_dim = config.value_dim();
    const Contraction attention = Contraction::of_leaves(whole, config.attention_size(), value_dim);
    const Contraction mlp = Contraction::of_leaves(whole, config.intermediate);
    const Contraction shared = Contraction::of_leaves(whole, config.experts.shared_intermediate());
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
                              &out.qkv_rows, &out.gate_up_rows, &out.shared, &out.shared_rows})
        each->tree = tree;
    for (std::int64_t b = part.leaves.begin; b < part.leaves.end; ++b) {
        const auto at = static_cast<std::size_t>(b);
        out.attention.leaves.push_back(moved(attention.leaves[at], part.heads.begin * value_dim));
        out.intermediate.leaves.push_back(moved(mlp.leaves[at], part.intermediate.begin));
        out.heads.leaves.push_back(moved(heads.leaves[at], part.heads.begin));
        out.kv_heads.leaves.push_back(moved(kv_heads[at], part.kv_heads.begin));
        std::vector<Range>& rows = out.qkv_rows.leaves.emplace_back();
        for (const Range range : out.heads.leaves.back())
            rows.push_back({range.begin * head_dim, range.end * head_dim});
        if (!config.latent.used()) {
            for (const std::int64_t begin : {q_size, q_size + kv_size}) {  // k, then v
                for (const Range range : out.kv_heads.leaves.back())
                    rows.push_back({begin + range.begin * head_dim, begin + range.end * head_dim});
            }
        }
        out.gate_up_rows.leaves.push_back(
            gate_then_up(out.intermediate.leaves.back(), part.intermediate.size()));
        out.shared.leaves.push_back(moved(shared.leaves[at], part.shared.begin));
        out.shared_rows.leaves.push_back(
            gate_then_up(out.shared.leaves.back(), part.shared.size()));
    }
    return out;
}

std::vector<Range> vocabulary_leaves(const ModelConfig& config, const Part& part) {
    const std::vector<Range> all = leaf_ranges(config.vocab_size, config.tree().leaves());
    return {all.begin() + part.leaves.begin, all.begin() + part.leaves.end};
}

}  // namespace rankwise::model
