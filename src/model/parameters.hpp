// The parameter table of a decoder: Hugging Face names, shapes, and how each is cut.
#pragma once

#include "src/base/parameter_table.hpp"
#include "src/model/config.hpp"

namespace rankwise::model {

/// Parameters of one decoder layer; -1 where the family has none.
struct LayerIds {
    ParameterId input_norm = -1;
    ParameterId q = -1, k = -1, v = -1, o = -1;
    ParameterId q_bias = -1, k_bias = -1, v_bias = -1, o_bias = -1;
    ParameterId q_norm = -1, k_norm = -1;
    ParameterId post_norm = -1;
    ParameterId gate = -1, up = -1, down = -1;
    ParameterId gate_bias = -1, up_bias = -1, down_bias = -1;
};

/// The table with the positions of its parameters.
struct DecoderParameters {
    ParameterTable table;
    ParameterId embedding = -1;
    std::vector<LayerIds> layers;
    ParameterId final_norm = -1;
    ParameterId head = -1;  ///< equals `embedding` when tied
};

[[nodiscard]] DecoderParameters decoder_parameters(const ModelConfig& config);

/// Contractions of a layer's matmuls, each with the model's tree where tensor ranks may split it
/// (N2).
struct LayerContractions {
    Contraction hidden;        ///< straight over the residual stream
    Contraction attention;     ///< o_proj forward: leaves of whole heads
    Contraction intermediate;  ///< down_proj forward: leaves of 16-units
    Contraction qkv_rows;      ///< input gradient of q, k, v stacked: per leaf q, then k, then v
    Contraction gate_up_rows;  ///< input gradient of gate, up stacked: per leaf gate, then up
    Contraction heads;         ///< over the query heads: dk, dv, QK-norm gradients
    Contraction kv_heads;  ///< over the KV heads: a KV head that spans leaves counts in its first
};

[[nodiscard]] LayerContractions layer_contractions(const ModelConfig& config);

/// Vocabulary ranges of the leaves of the head.
[[nodiscard]] std::vector<Range> vocabulary_leaves(const ModelConfig& config);

}  // namespace rankwise::model
