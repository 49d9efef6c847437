#include "src/model/config.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include "src/base/error.hpp"
#include "src/model/config_deepseek.hpp"

namespace rankwise::model {
namespace {

constexpr std::array<std::pair<Family, const char*>, 5> kFamilies{
    {{Family::llama, "llama"},
     {Family::qwen2, "qwen2"},
     {Family::qwen3, "qwen3"},
     {Family::deepseek_v2, "deepseek_v2"},
     {Family::deepseek_v3, "deepseek_v3"}}};

constexpr std::array<std::pair<Family, const char*>, 5> kArchitectures{
    {{Family::llama, "LlamaForCausalLM"},
     {Family::qwen2, "Qwen2ForCausalLM"},
     {Family::qwen3, "Qwen3ForCausalLM"},
     {Family::deepseek_v2, "DeepseekV2ForCausalLM"},
     {Family::deepseek_v3, "DeepseekV3ForCausalLM"}}};

std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path);
    require(file.good(), "{}: cannot be read; a model folder needs it", path.string());
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

Json parse(std::string_view text, const std::string& where) {
    try {
        return Json::parse(text);
    } catch (const Json::exception& problem) {
        throw BadInput(fmt::format("{}: is not valid JSON: {}", where, problem.what()));
    }
}

void read_rope(const Fields& fields, ModelConfig& config) {
    RopeConfig& rope = config.rope;
    // Newer files gather everything in rope_parameters; older ones have rope_theta and
    // rope_scaling.
    const bool gathered = fields.has("rope_parameters");
    rope.theta = gathered ? fields.child("rope_parameters").get<double>("rope_theta", 10000.0)
                          : fields.get<double>("rope_theta", 10000.0);
    const char* key = gathered ? "rope_parameters" : "rope_scaling";
    if (!fields.has(key)) return;
    const Fields scaling = fields.child(key);
    const auto type =
        scaling.get<std::string>("rope_type", scaling.get<std::string>("type", "default"));
    if (type == "default") return;
    rope.factor = scaling.get<double>("factor");
    rope.original_max_position =
        scaling.get<std::int64_t>("original_max_position_embeddings", config.max_position);
    if (type == "linear") {
        rope.scaling = RopeScaling::linear;
    } else if (type == "dynamic") {
        rope.scaling = RopeScaling::dynamic;
    } else if (type == "llama3") {
        rope.scaling = RopeScaling::llama3;
        rope.low_freq_factor = scaling.get<double>("low_freq_factor");
        rope.high_freq_factor = scaling.get<double>("high_freq_factor");
    } else if (type == "yarn") {
        rope.scaling = RopeScaling::yarn;
        rope.beta_fast = scaling.get<double>("beta_fast", 32.0);
        rope.beta_slow = scaling.get<double>("beta_slow", 1.0);
        rope.mscale = scaling.get<double>("mscale", 0.0);
        rope.mscale_all_dim = scaling.get<double>("mscale_all_dim", 0.0);
        rope.attention_factor = scaling.get<double>("attention_factor", 0.0);
    } else {
        throw BadInput(fmt::format(
            "{}: unknown rope type \"{}\"; known: default, linear, dynamic, llama3, yarn",
            scaling.where(), type));
    }
}

}  // namespace

ReductionTree ModelConfig::tree() const {
    return reduction.empty() ? reduction_tree(heads, kv_heads) : ReductionTree{reduction};
}

const char* name_of(Family family) {
    return name_in(kFamilies, family);
}

Family family_from_name(const std::string& name, const std::string& where) {
    return value_in(kFamilies, name, "model_type", where);
}

DType dtype_from_name(const std::string& name, const std::string& where) {
    require(name == "float32" || name == "bfloat16",
            "{}: a model cannot compute in {}; expected float32 or bfloat16", where, name);
    return name == "bfloat16" ? DType::bf16 : DType::f32;
}

void validate(const ModelConfig& config, const std::string& where) {
    const std::array<std::pair<const char*, std::int64_t>, 8> sizes{
        {{"vocab_size", config.vocab_size},
         {"hidden_size", config.hidden},
         {"num_hidden_layers", config.layers},
         {"num_attention_heads", config.heads},
         {"num_key_value_heads", config.kv_heads},
         {"head_dim", config.head_dim},
         {"intermediate_size", config.intermediate},
         {"max_position_embeddings", config.max_position}}};
    for (const auto& [name, value] : sizes) {
        require(value > 0, "{}: {} is {}; it must be positive", where, name, value);
    }
    require(config.heads % config.kv_heads == 0,
            "{}: num_attention_heads {} is no multiple of num_key_value_heads {}", where,
            config.heads, config.kv_heads);
    require(config.rope_dim() % 2 == 0, "{}: {} {} is odd; rotary embedding needs pairs", where,
            config.latent.used() ? "qk_rope_head_dim" : "head_dim", config.rope_dim());
    require(config.rms_norm_eps > 0.0, "{}: rms_norm_eps must be positive", where);
    validate_deepseek(config, where);
    require(config.dtype == DType::f32 || config.dtype == DType::bf16,
            "{}: a model cannot compute in {}; expected float32 or bfloat16", where,
            name_of(config.dtype));
    require(config.dtype == DType::f32 || !config.latent.used(),
            "{}: a {} model computes in float32 alone in this version: set dtype = float32", where,
            name_of(config.family));
    const int leaves = config.tree().leaves();
    require(config.heads % leaves == 0,
            "{}: the reduction list has product {}, which does not divide the {} heads", where,
            leaves, config.heads);
}

ModelConfig config_from_json(std::string_view text, const std::string& where) {
    const Json json = parse(text, where);
    const Fields fields(json, where);
    ModelConfig config;
    config.family = family_from_name(fields.get<std::string>("model_type"), where);
    const auto activation = fields.get<std::string>("hidden_act", "silu");
    require(activation == "silu", "{}: hidden_act is \"{}\"; only \"silu\" is known", where,
            activation);
    config.vocab_size = fields.get<std::int64_t>("vocab_size");
    config.hidden = fields.get<std::int64_t>("hidden_size");
    config.layers = fields.get<std::int64_t>("num_hidden_layers");
    config.heads = fields.get<std::int64_t>("num_attention_heads");
    config.kv_heads = fields.get<std::int64_t>("num_key_value_heads", config.heads);
    require(config.heads > 0, "{}: num_attention_heads must be positive", where);
    config.head_dim = fields.get<std::int64_t>("head_dim", config.hidden / config.heads);
    config.intermediate = fields.get<std::int64_t>("intermediate_size");
    config.max_position = fields.get<std::int64_t>("max_position_embeddings", 2048);
    config.rms_norm_eps = fields.get<double>("rms_norm_eps", 1e-6);
    config.initializer_range = fields.get<double>("initializer_range", 0.02);
    config.tied = fields.get<bool>("tie_word_embeddings", false);
    const bool attention_bias = fields.get<bool>("attention_bias", false);
    config.qkv_bias = config.family == Family::qwen2 || attention_bias;
    config.o_bias = config.family != Family::qwen2 && attention_bias;
    config.mlp_bias = fields.get<bool>("mlp_bias", false);
    config.qk_norm = config.family == Family::qwen3;
    if (is_deepseek(config.family)) read_deepseek(fields, config);
    config.bos = fields.has("bos_token_id") ? fields.get<TokenId>("bos_token_id") : -1;
    config.eos = fields.ids("eos_token_id");
    read_rope(fields, config);
    config.reduction = fields.get<std::vector<int>>("rankwise_reduction", {});
    config.dtype = dtype_from_name(fields.get<std::string>("rankwise_dtype", "float32"), where);
    validate(config, where);
    return config;
}

ModelConfig read_config(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "config.json";
    ModelConfig config = config_from_json(read_text(path), path.string());
    const std::filesystem::path generation = folder / "generation_config.json";
    if (std::filesystem::exists(generation)) {
        const Json more = parse(read_text(generation), generation.string());
        const Fields extra(more, generation.string());
        if (extra.has("eos_token_id")) config.eos = extra.ids("eos_token_id");
    }
    return config;
}

io::Fp8Blocks read_fp8_blocks(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "config.json";
    const Json json = parse(read_text(path), path.string());
    const Fields fields(json, path.string());
    if (!fields.has("quantization_config")) return {};
    const Fields quantised = fields.child("quantization_config");
    const auto method = quantised.get<std::string>("quant_method");
    const auto format = quantised.get<std::string>("fmt", "e4m3");
    require(
        method == "fp8" && format == "e4m3",
        "{}: quant_method \"{}\" with fmt \"{}\" is not known; weights may be F32, BF16, F16, or "
        "fp8 of e4m3 in blocks",
        quantised.where(), method, format);
    const auto sizes = quantised.get<std::vector<std::int64_t>>("weight_block_size", {128, 128});
    require(sizes.size() == 2 && sizes[0] > 0 && sizes[1] > 0,
            "{}: weight_block_size is [{}]; expected rows and columns", quantised.where(),
            fmt::join(sizes, ", "));
    return {sizes[0], sizes[1]};
}

std::string to_json(const ModelConfig& config, DType dtype) {
    nlohmann::ordered_json json;
    for (const auto& [value, name] : kArchitectures) {
        if (value == config.family) json["architectures"] = {name};
    }
    json["model_type"] = name_of(config.family);
    json["vocab_size"] = config.vocab_size;
    json["hidden_size"] = config.hidden;
    json["intermediate_size"] = config.intermediate;
    json["num_hidden_layers"] = config.layers;
    json["num_attention_heads"] = config.heads;
    json["num_key_value_heads"] = config.kv_heads;
    if (is_deepseek(config.family)) {
        write_deepseek(config, json);
    } else {
        json["head_dim"] = config.head_dim;
    }
    json["max_position_embeddings"] = config.max_position;
    json["hidden_act"] = "silu";
    json["rms_norm_eps"] = config.rms_norm_eps;
    json["initializer_range"] = config.initializer_range;
    json["tie_word_embeddings"] = config.tied;
    if (config.family != Family::qwen2) json["attention_bias"] = config.qkv_bias;
    if (config.family == Family::llama) json["mlp_bias"] = config.mlp_bias;
    if (config.family == Family::qwen2) json["use_sliding_window"] = false;
    json["rope_theta"] = config.rope.theta;
    const RopeConfig& rope = config.rope;
    if (rope.scaling != RopeScaling::none) {
        nlohmann::ordered_json scaling;
        constexpr std::array<const char*, 5> kNames{"default", "linear", "dynamic", "llama3",
                                                    "yarn"};
        scaling["rope_type"] = kNames.at(static_cast<std::size_t>(rope.scaling));
        scaling["factor"] = rope.factor;
        scaling["original_max_position_embeddings"] = rope.original_max_position;
        if (rope.scaling == RopeScaling::llama3) {
            scaling["low_freq_factor"] = rope.low_freq_factor;
            scaling["high_freq_factor"] = rope.high_freq_factor;
        }
        if (rope.scaling == RopeScaling::yarn) {
            scaling["beta_fast"] = rope.beta_fast;
            scaling["beta_slow"] = rope.beta_slow;
            if (rope.mscale != 0.0) scaling["mscale"] = rope.mscale;
            if (rope.mscale_all_dim != 0.0) scaling["mscale_all_dim"] = rope.mscale_all_dim;
            if (rope.attention_factor != 0.0) scaling["attention_factor"] = rope.attention_factor;
        }
        json["rope_scaling"] = scaling;
    }
    ensure(dtype == DType::f32 || dtype == DType::bf16, "a config.json for {} tensors",
           name_of(dtype));
    json["torch_dtype"] = dtype == DType::bf16 ? "bfloat16" : "float32";
    if (config.bos >= 0) json["bos_token_id"] = config.bos;
    if (config.eos.size() == 1) json["eos_token_id"] = config.eos.front();
    if (config.eos.size() > 1) json["eos_token_id"] = config.eos;
    if (!config.reduction.empty()) json["rankwise_reduction"] = config.reduction;
    if (config.dtype == DType::bf16) json["rankwise_dtype"] = "bfloat16";
    return json.dump(2) + "\n";
}

std::vector<std::string> differences(const ModelConfig& a, const ModelConfig& b) {
    constexpr std::array<std::string_view, 5> kNoMatter{"initializer_range", "bos_token_id",
                                                        "eos_token_id", "rankwise_reduction",
                                                        "rankwise_dtype"};
    const Json in_a = Json::parse(to_json(a));
    const Json in_b = Json::parse(to_json(b));
    std::set<std::string> keys;
    for (const auto& json : {std::cref(in_a), std::cref(in_b)}) {
        for (const auto& entry : json.get().items()) keys.insert(entry.key());
    }
    std::vector<std::string> list;
    for (const std::string& key : keys) {
        if (std::find(kNoMatter.begin(), kNoMatter.end(), key) != kNoMatter.end()) continue;
        const Json left = in_a.value(key, Json());
        const Json right = in_b.value(key, Json());
        if (left == right) continue;
        list.push_back(fmt::format("{} is {} and {}", key, left.dump(), right.dump()));
    }
    return list;
}

}  // namespace rankwise::model
