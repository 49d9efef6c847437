// What a model is: its sizes and its variant, as a Hugging Face config.json says them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.hpp"
#include "kernels/gating.hpp"
#include "src/base/dtype.hpp"
#include "src/base/reduction.hpp"
#include "src/base/trajectory.hpp"

namespace rankwise::model {

/// Model families. One decoder serves them; the flags of ModelConfig say where they differ.
enum class Family : std::uint8_t { llama, qwen2, qwen3, deepseek_v2, deepseek_v3 };

/// How rotary frequencies are stretched beyond the original context (MODEL families' config key
/// rope_scaling).
enum class RopeScaling : std::uint8_t { none, linear, dynamic, llama3, yarn };

struct RopeConfig {
    double theta = 10000.0;
    RopeScaling scaling = RopeScaling::none;
    double factor = 1.0;
    double low_freq_factor = 1.0;   ///< llama3
    double high_freq_factor = 4.0;  ///< llama3
    double beta_fast = 32.0;        ///< yarn
    double beta_slow = 1.0;         ///< yarn
    double mscale = 0.0;            ///< yarn; 0: absent
    double mscale_all_dim = 0.0;
    double attention_factor = 0.0;  ///< yarn; 0: computed
    std::int64_t original_max_position = 0;
    friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

/// Multi-head latent attention (DeepSeek-V2 (2024) section 2.1): keys and values of all heads are
/// made from one latent vector a token, beside one rotated key.
struct LatentConfig {
    std::int64_t q_rank = 0;     ///< q_lora_rank; 0: queries are not compressed
    std::int64_t kv_rank = 0;    ///< kv_lora_rank; 0: the family has no latent attention
    std::int64_t nope_dim = 0;   ///< qk_nope_head_dim
    std::int64_t rope_dim = 0;   ///< qk_rope_head_dim
    std::int64_t value_dim = 0;  ///< v_head_dim

    [[nodiscard]] bool used() const { return kv_rank > 0; }
    /// What is kept of a token: the latent, then the rotated key.
    [[nodiscard]] std::int64_t key_dim() const { return kv_rank + rope_dim; }
    friend bool operator==(const LatentConfig&, const LatentConfig&) = default;
};

/// How experts are chosen: the config key topk_method.
enum class ChoiceMethod : std::uint8_t {
    greedy,                ///< the largest scores
    group_limited_greedy,  ///< of the groups with the largest score in them
    noaux_tc,              ///< of the groups with the largest sum of two; scores with a bias
};

/// Layers with a mixture of experts (DeepSeekMoE).
struct ExpertsConfig {
    std::int64_t routed = 0;        ///< n_routed_experts; 0: every layer is dense
    std::int64_t shared = 0;        ///< n_shared_experts: one MLP of as many widths
    std::int64_t chosen = 0;        ///< num_experts_per_tok
    std::int64_t intermediate = 0;  ///< moe_intermediate_size
    std::int64_t first_dense = 0;   ///< first_k_dense_replace
    std::int64_t every = 1;         ///< moe_layer_freq
    std::int64_t groups = 1;        ///< n_group
    std::int64_t kept_groups = 1;   ///< topk_group
    kernels::Scoring scoring = kernels::Scoring::sigmoid;  ///< scoring_func
    ChoiceMethod method = ChoiceMethod::noaux_tc;
    bool normalise = false;  ///< norm_topk_prob
    double scale = 1.0;      ///< routed_scaling_factor

    [[nodiscard]] bool has_bias() const { return method == ChoiceMethod::noaux_tc; }
    [[nodiscard]] std::int64_t shared_intermediate() const { return intermediate * shared; }
    friend bool operator==(const ExpertsConfig&, const ExpertsConfig&) = default;
};

struct ModelConfig {
    Family family = Family::llama;
    std::int64_t vocab_size = 0;  ///< rows of the embedding; may exceed the tokenizer's ids
    std::int64_t hidden = 0;
    std::int64_t layers = 0;
    std::int64_t heads = 0;
    std::int64_t kv_heads = 0;
    std::int64_t head_dim = 0;      ///< of a query; with latent attention its nope and rope parts
    std::int64_t intermediate = 0;  ///< of dense layers
    std::int64_t max_position = 0;
    double rms_norm_eps = 1e-6;
    double initializer_range = 0.02;
    bool tied = false;
    bool qkv_bias = false;  ///< qwen2; llama with attention_bias (then o_proj has one too)
    bool o_bias = false;
    bool mlp_bias = false;
    bool qk_norm = false;  ///< qwen3
    LatentConfig latent;
    ExpertsConfig experts;
    /// num_nextn_predict_layers: layers that predict further tokens. Kept and written as they are
    /// unless their training is asked for (Weights::use_mtp).
    std::int64_t extra_layers = 0;
    RopeConfig rope;
    TokenId bos = -1;
    std::vector<TokenId> eos;
    std::vector<int> reduction;  ///< overrides reduction_tree(); empty: derived from the heads
    /// f32 or bf16: of activations, the residual stream, cached keys and values, and of the packed
    /// copies of weights. Masters, sums, logits and gradients of weights are f32.
    DType dtype = DType::f32;

    [[nodiscard]] std::int64_t q_size() const { return heads * head_dim; }
    [[nodiscard]] std::int64_t kv_size() const { return kv_heads * head_dim; }
    [[nodiscard]] std::int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
    [[nodiscard]] std::int64_t value_dim() const {
        return latent.used() ? latent.value_dim : head_dim;
    }
    /// What attention gives: the values of all heads.
    [[nodiscard]] std::int64_t attention_size() const { return heads * value_dim(); }
    /// How much of a head is rotated.
    [[nodiscard]] std::int64_t rope_dim() const {
        return latent.used() ? latent.rope_dim : head_dim;
    }
    [[nodiscard]] bool has_experts(std::int64_t layer) const {
        return experts.routed > 0 && layer >= experts.first_dense && layer % experts.every == 0;
    }
    /// The tree of sums that tensor ranks may split (N2).
    [[nodiscard]] ReductionTree tree() const;
    friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

/// What a model may compute in: float32 or bfloat16.
/// @throws BadInput for another name, naming `where`.
[[nodiscard]] DType dtype_from_name(const std::string& name, const std::string& where);

/// Checks that the sizes fit each other.
/// @throws BadInput naming the first that does not, and `where` it came from.
void validate(const ModelConfig& config, const std::string& where);

/// What DIR/config.json says about 8-bit weights ("quantization_config"), the default if nothing.
/// @throws BadInput if the weights are quantised in a way that cannot be read.
[[nodiscard]] io::Fp8Blocks read_fp8_blocks(const std::filesystem::path& folder);

/// Reads DIR/config.json (and the stop ids of generation_config.json if there is one).
/// @throws BadInput if the file is missing or malformed, a key is missing or of the wrong type, or
/// the architecture is not known (lists those that are).
[[nodiscard]] ModelConfig read_config(const std::filesystem::path& folder);

/// The same from the text of a config.json; `where` stands for the file in messages.
[[nodiscard]] ModelConfig config_from_json(std::string_view text, const std::string& where);

/// The text of a config.json that reads back equal. `dtype` is that of the tensors beside it. A
/// reduction list that is not derived from the heads stands under "rankwise_reduction", bf16 as the
/// type that is computed with under "rankwise_dtype", which others ignore.
[[nodiscard]] std::string to_json(const ModelConfig& config, DType dtype = DType::f32);

/// Where two configurations are not of the same model: "rope_theta is 10000 and 500000", a line
/// each, under the keys of config.json. What does not change what a model is (ends, the width of
/// fresh weights, the order of sums, the type that is computed with) does not count.
[[nodiscard]] std::vector<std::string> differences(const ModelConfig& a, const ModelConfig& b);

/// "llama", "qwen2", …: the config key model_type.
[[nodiscard]] const char* name_of(Family family);
[[nodiscard]] Family family_from_name(const std::string& name, const std::string& where);

}  // namespace rankwise::model
