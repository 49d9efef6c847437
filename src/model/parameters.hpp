// The parameter table of a decoder: Hugging Face names, shapes, and how each is cut.
#pragma once

#include <algorithm>

#include "parallel/mesh.hpp"
#include "parallel/shard_map.hpp"
#include "src/base/parameter_table.hpp"
#include "src/model/config.hpp"

namespace rankwise::model {

/// A gated MLP.
struct MlpIds {
    ParameterId gate = -1, up = -1, down = -1;
};

/// Parameters of one decoder layer; -1 where the family has none.
struct LayerIds {
    ParameterId input_norm = -1;
    ParameterId q = -1, k = -1, v = -1, o = -1;
    ParameterId q_bias = -1, k_bias = -1, v_bias = -1, o_bias = -1;
    ParameterId q_norm = -1, k_norm = -1;
    ParameterId post_norm = -1;
    ParameterId gate = -1, up = -1, down = -1;
    ParameterId gate_bias = -1, up_bias = -1, down_bias = -1;
    // Latent attention: q_a and q_b, or q above, in place of q; kv_a and kv_b in place of k and v.
    ParameterId q_a = -1, q_a_norm = -1, q_b = -1;
    ParameterId kv_a = -1, kv_a_norm = -1, kv_b = -1;
    // A layer with experts, in place of gate, up, down.
    ParameterId router = -1, router_bias = -1;
    std::vector<MlpIds> experts;
    MlpIds shared;
};

/// A module that predicts one token further (DeepSeek-V3 (2024) section 2.2): a decoder layer, what
/// makes its input, a norm before the model's own head, and copies of embedding and head, which
/// files have and no pass reads where the originals are.
struct MtpIds {
    ParameterId embedding_copy = -1, head_copy = -1;
    ParameterId embedding_norm = -1, hidden_norm = -1;  ///< enorm, hnorm
    ParameterId projection = -1;                        ///< eh_proj
    LayerIds layer;
    ParameterId head_norm = -1;
};

/// The table with the positions of its parameters.
struct DecoderParameters {
    ParameterTable table;
    ParameterId embedding = -1;
    std::vector<LayerIds> layers;
    ParameterId final_norm = -1;
    ParameterId head = -1;    ///< equals `embedding` when tied
    std::vector<MtpIds> mtp;  ///< their layers count on after the decoder's

    /// Of a layer of the decoder, or of a module behind it.
    [[nodiscard]] const LayerIds& layer(std::int64_t index) const {
        const auto at = static_cast<std::size_t>(index);
        return at < layers.size() ? layers[at] : mtp[at - layers.size()].layer;
    }
    /// By parameter: whether it is kept as it is. Modules are trained only where that is asked for;
    /// routers' biases and the modules' copies never are.
    [[nodiscard]] std::vector<bool> frozen(bool train_mtp) const;
};

[[nodiscard]] DecoderParameters decoder_parameters(const ModelConfig& config);

/// A rank's place on the tensor axis, and on the axis that routed experts are shared out over: its
/// degree divides the tensor axis's, or is a multiple of it; the ranks of the smaller one are
/// consecutive on the other.
struct TensorPlace {
    int degree = 1;
    int rank = 0;
    int experts = 1;
    int expert_rank = 0;

    /// Tensor ranks in one group of the expert axis, each with experts of its own; those of another
    /// group have the same ones.
    [[nodiscard]] int tensor_ranks_of_group() const { return std::min(degree, experts); }
};

/// Degrees of the tensor axis that give the bits of one rank, ascending: products of prefixes of
/// the reduction list (N2) whose ranks hold whole groups of KV heads, or each one head of them.
[[nodiscard]] std::vector<int> tensor_degrees(const ModelConfig& config);

/// Degrees of the expert axis that a mesh with these other degrees can have, ascending, up to as
/// many as there are experts: those that divide the tensor ranks (several groups have the tokens of
/// a chunk between them, and bring an expert's rows together for its gradient), and the tensor
/// ranks of so many data ranks as divide these. Others would have groups with a part of a chunk's
/// ranks and all of another's: whose sum an expert's gradient is would differ from chunk to chunk.
[[nodiscard]] std::vector<int> expert_degrees(const ModelConfig& config,
                                              const parallel::MeshShape& shape);

/// What one tensor rank holds of a decoder: whole leaves. On an axis of one rank: everything.
struct Part {
    TensorPlace place;
    Range leaves;
    Range heads;     ///< query heads
    Range kv_heads;  ///< those that its query heads read; beyond as many ranks as KV heads, several
                     ///< ranks hold the same
    bool first_holder = true;  ///< its KV heads count here: gradients, digests, files
    Range intermediate;        ///< may be empty
    Range shared;              ///< of the shared experts; may be empty
    Range experts;             ///< routed experts of each layer that has them; may be empty
    Range vocabulary;          ///< may be empty
    std::int64_t head_dim = 0;
    std::int64_t value_dim = 0;

    [[nodiscard]] std::int64_t q_size() const { return heads.size() * head_dim; }
    /// What attention gives: the values of its heads.
    [[nodiscard]] std::int64_t attention_size() const { return heads.size() * value_dim; }
    [[nodiscard]] std::int64_t kv_size() const { return kv_heads.size() * head_dim; }
    [[nodiscard]] std::int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
};

/// @throws InternalError if the degree is not one of tensor_degrees().
[[nodiscard]] Part part_of(const ModelConfig& config, TensorPlace place);

/// Where a rank's part of a parameter lies in it; and whether it counts there: what several ranks
/// hold counts on the lowest. Routed experts that are shared out are whole or not there; those of
/// one tensor rank may be held by several data ranks between them (data_ranks_of()), and those of a
/// part of the tensor ranks by the others too.
[[nodiscard]] Box part_box(const Parameter& parameter, int leaves, TensorPlace place);
[[nodiscard]] bool part_counts(const Parameter& parameter, int leaves, TensorPlace place);
/// The data ranks that hold a part.
[[nodiscard]] parallel::DataRanks data_ranks_of(const Parameter& parameter, TensorPlace place);

/// Contractions of a layer's matmuls over one rank's part, each with the tree of its leaves where
/// tensor ranks may split the sum (N2).
struct LayerContractions {
    Contraction hidden;        ///< straight over the residual stream
    Contraction attention;     ///< o_proj forward: leaves of whole heads
    Contraction intermediate;  ///< down_proj forward: leaves of 16-units
    Contraction qkv_rows;      ///< input gradient of q, k, v stacked: per leaf q, then k, then v;
                               ///< latent attention: of q_b (or q) alone
    Contraction gate_up_rows;  ///< input gradient of gate, up stacked: per leaf gate, then up
    Contraction heads;         ///< over the query heads: dk, dv, QK-norm gradients
    Contraction kv_heads;  ///< over the KV heads: a KV head that spans leaves counts in its first
    Contraction shared;    ///< down_proj of the shared experts
    Contraction shared_rows;  ///< input gradient of their gate, up stacked
};

[[nodiscard]] LayerContractions layer_contractions(const ModelConfig& config, const Part& part);

/// Vocabulary ranges of the leaves of the head that a rank holds.
[[nodiscard]] std::vector<Range> vocabulary_leaves(const ModelConfig& config, const Part& part);

}  // namespace rankwise::model
