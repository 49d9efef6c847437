#include "src/model/config_deepseek.hpp"

namespace rankwise::model {
namespace {

constexpr std::array<std::pair<ChoiceMethod, const char*>, 3> kMethods{
    {{ChoiceMethod::greedy, "greedy"},
     {ChoiceMethod::group_limited_greedy, "group_limited_greedy"},
     {ChoiceMethod::noaux_tc, "noaux_tc"}}};

constexpr std::array<std::pair<kernels::Scoring, const char*>, 2> kScorings{
    {{kernels::Scoring::softmax, "softmax"}, {kernels::Scoring::sigmoid, "sigmoid"}}};

/// A key that must be as the program computes, if it is there at all.
template <class T>
void require_plain(const Fields& fields, const char* key, const T& plain, const char* why) {
    const T found = fields.get<T>(key, plain);
    require(found == plain, "{}: {} is {}, which is not known: {}", fields.where(), key, found,
            why);
}

void read_latent(const Fields& fields, ModelConfig& config) {
    require_plain(fields, "attention_bias", false, "latent attention has no biases here");
    require_plain(fields, "rope_interleave", true, "rotated pairs stand side by side");
    require_plain(fields, "mlp_bias", false, "experts have no biases");
    LatentConfig& latent = config.latent;
    latent.q_rank = fields.get<std::int64_t>("q_lora_rank", 0);
    latent.kv_rank = fields.get<std::int64_t>("kv_lora_rank");
    latent.nope_dim = fields.get<std::int64_t>("qk_nope_head_dim");
    latent.rope_dim = fields.get<std::int64_t>("qk_rope_head_dim");
    latent.value_dim = fields.get<std::int64_t>("v_head_dim");
    config.head_dim = latent.nope_dim + latent.rope_dim;
    config.kv_heads = config.heads;  // the key plays no part
}

void read_experts(const Fields& fields, ModelConfig& config) {
    const bool v3 = config.family == Family::deepseek_v3;
    config.extra_layers = fields.get<std::int64_t>("num_nextn_predict_layers", 0);
    ExpertsConfig& experts = config.experts;
    experts.routed = fields.get<std::int64_t>("n_routed_experts", 0);
    if (experts.routed == 0) {
        experts = {};
        return;
    }
    experts.shared = fields.get<std::int64_t>("n_shared_experts", 0);
    experts.chosen = fields.get<std::int64_t>("num_experts_per_tok");
    experts.intermediate = fields.get<std::int64_t>("moe_intermediate_size");
    experts.first_dense = fields.get<std::int64_t>("first_k_dense_replace", 0);
    experts.every = fields.get<std::int64_t>("moe_layer_freq", 1);
    experts.groups = fields.get<std::int64_t>("n_group", 1);
    experts.kept_groups = fields.get<std::int64_t>("topk_group", 1);
    experts.scoring =
        value_in(kScorings, fields.get<std::string>("scoring_func", v3 ? "sigmoid" : "softmax"),
                 "scoring_func", fields.where());
    experts.method =
        value_in(kMethods, fields.get<std::string>("topk_method", v3 ? "noaux_tc" : "greedy"),
                 "topk_method", fields.where());
    if (experts.method == ChoiceMethod::greedy) experts.groups = experts.kept_groups = 1;
    experts.normalise = fields.get<bool>("norm_topk_prob", v3);
    experts.scale = fields.get<double>("routed_scaling_factor", 1.0);
    require(v3 || !experts.normalise,
            "{}: norm_topk_prob is true in a deepseek_v2 model, whose implementations do not agree "
            "on whether weights are scaled then",
            fields.where());
}

void validate_latent(const ModelConfig& config, const std::string& where) {
    const LatentConfig& latent = config.latent;
    require(latent.q_rank >= 0, "{}: q_lora_rank is {}; expected null or a size", where,
            latent.q_rank);
    const std::array<std::pair<const char*, std::int64_t>, 4> sizes{
        {{"kv_lora_rank", latent.kv_rank},
         {"qk_nope_head_dim", latent.nope_dim},
         {"qk_rope_head_dim", latent.rope_dim},
         {"v_head_dim", latent.value_dim}}};
    for (const auto& [name, value] : sizes) {
        require(value > 0, "{}: {} is {}; it must be positive", where, name, value);
    }
}

void validate_experts(const ModelConfig& config, const std::string& where) {
    const ExpertsConfig& experts = config.experts;
    require(experts.routed >= 0 && config.extra_layers >= 0,
            "{}: n_routed_experts {} and num_nextn_predict_layers {} cannot be negative", where,
            experts.routed, config.extra_layers);
    if (experts.routed == 0) return;
    const std::array<std::pair<const char*, std::int64_t>, 5> sizes{
        {{"num_experts_per_tok", experts.chosen},
         {"moe_intermediate_size", experts.intermediate},
         {"moe_layer_freq", experts.every},
         {"n_group", experts.groups},
         {"topk_group", experts.kept_groups}}};
    for (const auto& [name, value] : sizes) {
        require(value > 0, "{}: {} is {}; it must be positive", where, name, value);
    }
    require(experts.shared >= 0 && experts.first_dense >= 0,
            "{}: n_shared_experts {} and first_k_dense_replace {} cannot be negative", where,
            experts.shared, experts.first_dense);
    require(experts.routed % experts.groups == 0,
            "{}: n_routed_experts {} is no multiple of n_group {}", where, experts.routed,
            experts.groups);
    require(experts.kept_groups <= experts.groups, "{}: topk_group {} is more than n_group {}",
            where, experts.kept_groups, experts.groups);
    const std::int64_t open = experts.kept_groups * (experts.routed / experts.groups);
    require(experts.chosen <= open,
            "{}: num_experts_per_tok {} is more than the {} experts of topk_group {} groups", where,
            experts.chosen, open, experts.kept_groups);
    require(experts.method != ChoiceMethod::noaux_tc || experts.kept_groups == experts.groups ||
                experts.routed / experts.groups >= 2,
            "{}: groups of one expert have no two largest scores", where);
}

void write_latent(const ModelConfig& config, nlohmann::ordered_json& json) {
    const LatentConfig& latent = config.latent;
    json["q_lora_rank"] = nullptr;
    if (latent.q_rank > 0) json["q_lora_rank"] = latent.q_rank;
    json["kv_lora_rank"] = latent.kv_rank;
    json["qk_nope_head_dim"] = latent.nope_dim;
    json["qk_rope_head_dim"] = latent.rope_dim;
    json["v_head_dim"] = latent.value_dim;
}

void write_experts(const ModelConfig& config, nlohmann::ordered_json& json) {
    const ExpertsConfig& experts = config.experts;
    json["num_nextn_predict_layers"] = config.extra_layers;
    json["n_routed_experts"] = nullptr;
    if (experts.routed == 0) return;
    json["n_routed_experts"] = experts.routed;
    json["n_shared_experts"] = experts.shared;
    json["num_experts_per_tok"] = experts.chosen;
    json["moe_intermediate_size"] = experts.intermediate;
    json["first_k_dense_replace"] = experts.first_dense;
    json["moe_layer_freq"] = experts.every;
    json["n_group"] = experts.groups;
    json["topk_group"] = experts.kept_groups;
    json["scoring_func"] = name_in(kScorings, experts.scoring);
    json["topk_method"] = name_in(kMethods, experts.method);
    json["norm_topk_prob"] = experts.normalise;
    json["routed_scaling_factor"] = experts.scale;
}

}  // namespace

void read_deepseek(const Fields& fields, ModelConfig& config) {
    read_latent(fields, config);
    read_experts(fields, config);
}

void validate_deepseek(const ModelConfig& config, const std::string& where) {
    if (!is_deepseek(config.family)) return;
    validate_latent(config, where);
    validate_experts(config, where);
}

void write_deepseek(const ModelConfig& config, nlohmann::ordered_json& json) {
    write_latent(config, json);
    write_experts(config, json);
}

}  // namespace rankwise::model
