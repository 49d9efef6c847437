// [device], [parallel], [generation], [update], [model.policy] and [faults]: how a run computes,
// and with which model.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "kernels/device.hpp"
#include "parallel/mesh.hpp"
#include "src/base/options.hpp"
#include "src/model/config.hpp"
#include "src/model/initialise.hpp"
#include "src/stages/model_source.hpp"
#include "src/stages/stage.hpp"

namespace rankwise::app {

struct DeviceOptions {
    std::string kind = "cpu";
    std::string isa = "automatic";
    std::int64_t threads = 1;
    [[nodiscard]] OptionList options();
    [[nodiscard]] std::unique_ptr<kernels::Device> make() const;
};

struct ParallelOptions {
    std::int64_t data = 0;
    std::int64_t pipeline = 1;
    std::int64_t tensor = 1;
    std::int64_t expert = 1;
    std::int64_t expert_rows = 0;
    std::int64_t zero = 1;
    std::string schedule = "1f1b";
    std::int64_t thread_ranks = 1;
    [[nodiscard]] OptionList options();
    /// @throws BadInput listing what fits, if the degrees do not fit the ranks or are not
    /// supported; if `zero` is no stage that there is.
    [[nodiscard]] parallel::MeshShape shape(int world) const;
};

struct GenerationOptions {
    std::int64_t slots = 128;
    std::int64_t prefill_tokens = 2048;
    std::int64_t deal_interval = 1;
    std::string weights = "resident";
    [[nodiscard]] OptionList options();
};

struct UpdateOptions {
    std::string recompute = "none";
    std::int64_t recompute_layers = 0;
    std::string reference = "device";
    std::string head = "automatic";
    std::int64_t head_bytes = 32 << 20;
    [[nodiscard]] OptionList options();
    [[nodiscard]] model::LogitsUse logits() const;
    /// Layers of each stage that are computed again (model::StagePass); none yet for "fit".
    [[nodiscard]] std::int64_t layers_again() const;
};

struct FaultOptions {
    std::string break_rule = "none";
    std::int64_t flip_weight_at = -1;
    std::string flip_weight_in = "master";
    std::string throw_in = "none";
    std::int64_t throw_at = 0;
    std::int64_t throw_rank = 0;
    std::string throw_as = "error";
    std::int64_t nan_loss_at = 0;
    [[nodiscard]] OptionList options();
};

struct ModelOptions {
    std::string folder;
    std::string dtype = "float32";
    std::string family = "qwen2";
    std::int64_t vocab_size = 0;
    std::int64_t hidden_size = 128;
    std::int64_t num_hidden_layers = 4;
    std::int64_t num_attention_heads = 4;
    std::int64_t num_key_value_heads = 2;
    std::int64_t head_dim = 0;
    std::int64_t intermediate_size = 384;
    std::int64_t max_position_embeddings = 1024;
    double rope_theta = 10000.0;
    double rms_norm_eps = 1e-6;
    bool tie_word_embeddings = true;
    std::int64_t q_lora_rank = 0;
    std::int64_t kv_lora_rank = 512;
    std::int64_t qk_nope_head_dim = 128;
    std::int64_t qk_rope_head_dim = 64;
    std::int64_t v_head_dim = 128;
    std::int64_t n_routed_experts = 0;
    std::int64_t n_shared_experts = 1;
    std::int64_t num_experts_per_tok = 2;
    std::int64_t moe_intermediate_size = 128;
    std::int64_t first_k_dense_replace = 1;
    std::int64_t n_group = 1;
    std::int64_t topk_group = 1;
    double routed_scaling_factor = 1.0;
    std::int64_t num_nextn_predict_layers = 0;
    std::vector<double> reduction;
    double init_std = 0.02;
    bool init_scale_residual = true;
    [[nodiscard]] OptionList options();
    /// The model that `folder` names; nothing: random weights.
    [[nodiscard]] std::optional<stages::ModelSource> source(io::FileSystem& fs) const;
    /// The source's configuration, or the one that these options describe for a vocabulary.
    /// @param source  null: random weights
    [[nodiscard]] model::ModelConfig config(const text::Tokenizer& tokenizer,
                                            const stages::ModelSource* source) const;
    /// Fills in what the DeepSeek family has beyond others.
    void describe_deepseek(model::ModelConfig& config) const;
    /// Fills the weights with random numbers.
    void initialise(model::Weights& weights, std::uint64_t seed, model::Compute& compute) const;
};

}  // namespace rankwise::app
