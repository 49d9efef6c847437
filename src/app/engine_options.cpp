#include "src/app/engine_options.hpp"

#include <cmath>

#include "parallel/pipeline_schedule.hpp"
#include "src/base/error.hpp"
#include "src/model/decoder.hpp"

namespace rankwise::app {

namespace {

/// Automatic is the widest of the machine: the others are worth comparing with it.
std::vector<std::string> instruction_sets() {
    std::vector<std::string> sets{"automatic"};
    std::vector<kernels::Isa> available = kernels::available_isas();
    if (!available.empty()) available.pop_back();
    for (const kernels::Isa isa : available) sets.emplace_back(kernels::name_of(isa));
    return sets;
}

}  // namespace

OptionList DeviceOptions::options() {
    OptionList list;
    list.physical("kind", &kind, {"cpu", "checked"},
                  "cpu, or checked: the CPU over memory that host code cannot read")
        .one_of({"cpu", "checked"});
    list.physical("isa", &isa, instruction_sets(),
                  "instruction set; automatic: the widest of the machine")
        .one_of({"automatic", "avx2", "avx512", "avx512_bf16"});
    list.physical("threads", &threads, {"1", "2"}, "compute threads a rank")
        .at_least(1)
        .at_most(1024);
    return list;
}

std::unique_ptr<kernels::Device> DeviceOptions::make() const {
    kernels::Isa set = kernels::Isa::automatic;
    if (isa == "avx2") set = kernels::Isa::avx2;
    if (isa == "avx512") set = kernels::Isa::avx512;
    if (isa == "avx512_bf16") set = kernels::Isa::avx512_bf16;
    return kernels::make_cpu_device(
        {.isa = set, .threads = narrow<int>(threads), .checked = kind == "checked"});
}

OptionList ParallelOptions::options() {
    OptionList list;
    list.physical("data", &data, {"0"}, "data ranks; 0: all that the other axes leave").at_least(0);
    list.physical("pipeline", &pipeline, {"1", "2", "3", "4"},
                  "ranks that the layers are dealt to, at least one each")
        .at_least(1);
    list.physical(
            "schedule", &schedule, parallel::schedule_names(),
            "order of micro-batches in a pipeline: 1f1b; interleaved: each rank has two "
            "stretches of layers, for shorter waits and more memory; zero_bubble: gradients of "
            "weights fill the waits")
        .one_of(parallel::schedule_names());
    list.physical("tensor", &tensor, {"1", "2", "3", "4", "6", "8"},
                  "ranks that split each layer: 1, or a product that the model's reduction list "
                  "begins with")
        .at_least(1);
    list.physical("expert", &expert, {"1", "2", "4"},
                  "ranks that the routed experts of a layer are shared out over: 1, a divisor of "
                  "tensor, or the tensor ranks of so many data ranks")
        .at_least(1);
    list.physical("expert_rows", &expert_rows, {"0", "7"},
                  "rows that a rank computes at a time for experts that are shared out, in so many "
                  "rounds; 0: as many as one rank brings at most")
        .at_least(0);
    list.physical(
            "zero", &zero, {"0", "1", "3"},
            "what is sharded over the data ranks: 0 nothing, 1 optimizer state and gradients, "
            "3 weights too, gathered layer by layer")
        .at_least(0)
        .at_most(3);
    list.physical("thread_ranks", &thread_ranks, {"1", "2"},
                  "ranks that are threads of one process, in a run that is started without mpirun")
        .at_least(1);
    return list;
}

parallel::MeshShape ParallelOptions::shape(int world) const {
    require(zero != 2,
            "[parallel] zero = 2 is no stage of its own here: gradients are sharded with zero = 1 "
            "already; set 0, 1 or 3");
    return parallel::fill_data({.data = narrow<int>(data),
                                .pipeline = narrow<int>(pipeline),
                                .tensor = narrow<int>(tensor),
                                .expert = narrow<int>(expert)},
                               world);
}

OptionList GenerationOptions::options() {
    OptionList list;
    list.physical("slots", &slots, {"4", "64", "2", "8"}, "answers that a rank generates at a time")
        .at_least(1);
    list.physical("prefill_tokens", &prefill_tokens, {"2048", "7"},
                  "most prompt tokens in one pass")
        .at_least(1);
    list.physical("deal_interval", &deal_interval, {"1", "5"},
                  "decode steps between rounds of dealing prompts")
        .at_least(1);
    list.physical("weights", &weights, {"resident", "streamed"},
                  "with zero = 3, whether generation holds all weights or gathers them layer by "
                  "layer in every pass (less memory, and ranks go step by step together)")
        .one_of({"resident", "streamed"});
    return list;
}

OptionList UpdateOptions::options() {
    OptionList list;
    list.physical("recompute", &recompute, {"none", "layer"},
                  "layer: activations are computed again in the backward pass, for less memory; "
                  "fit: those of as few layers as make a rank fit into the memory that there is")
        .one_of({"none", "layer", "fit"});
    list.physical("recompute_layers", &recompute_layers, {"0", "2"},
                  "with recompute = layer: so many layers, from the first of each pipeline stage; "
                  "0: all")
        .at_least(0);
    list.physical(
            "reference", &reference, {"device", "host", "disk"},
            "where the reference's weights lie while they score nothing: in the host's memory "
            "or on the disk of the run directory they leave the device to other phases")
        .one_of({"device", "host", "disk"});
    list.physical("head", &head, {"automatic", "buffer", "recompute"},
                  "logits are kept for the backward pass (buffer: less work) or computed again "
                  "(recompute: less memory); automatic: kept where those of a micro-batch take no "
                  "more than four times head_bytes")
        .one_of({"automatic", "buffer", "recompute"});
    list.physical("head_bytes", &head_bytes, {"33554432", "4096"},
                  "most bytes of logits that are held at a time, where they are not kept")
        .at_least(1);
    return list;
}

model::LogitsUse UpdateOptions::logits() const {
    if (head == "buffer") return model::LogitsUse::buffer;
    return head == "recompute" ? model::LogitsUse::recompute : model::LogitsUse::automatic;
}

std::int64_t UpdateOptions::layers_again() const {
    if (recompute != "layer") return 0;
    return recompute_layers == 0 ? model::kAllLayers : recompute_layers;
}

OptionList FaultOptions::options() {
    OptionList list;
    list.logical(
            "break_rule", &break_rule,
            "for tests: breaks a rule of the exact order, so that layouts differ: gradients of "
            "chunks added in the order of ranks, leaves added without their tree by several "
            "threads or tensor ranks, log-probabilities of several answers at a time summed "
            "otherwise "
            "than those of one")
        .one_of({"none", "chunk_order", "leaf_order", "sampling_order"});
    list.logical("flip_weight_at", &flip_weight_at,
                 "for tests: step after whose generation a weight's bit is flipped")
        .at_least(-1);
    list.logical("flip_weight_in", &flip_weight_in,
                 "for tests: in the weights of every rank, or in what the last rank has packed")
        .one_of({"master", "packed"});
    list.operational("throw_in", &throw_in, "ends a run, and changes nothing before",
                     "for tests: phase in which a rank fails")
        .one_of({"none", "build", "restore", "data", "generate", "score", "advantages", "reference",
                 "update", "record", "evaluate", "checkpoint", "export"});
    list.operational("throw_at", &throw_at, "ends a run, and changes nothing before",
                     "for tests: step in which it fails; 0: the first that has the phase")
        .at_least(0);
    list.operational("throw_rank", &throw_rank, "ends a run, and changes nothing before",
                     "for tests: the rank that fails")
        .at_least(0);
    list.operational("throw_as", &throw_as, "ends a run, and changes nothing before",
                     "for tests: error: it throws; kill: it dies without a word; hang: it stops "
                     "moving")
        .one_of({"error", "kill", "hang"});
    list.operational("nan_loss_at", &nan_loss_at, "ends a run, and changes nothing before",
                     "for tests: step in which the losses of throw_rank are no numbers; 0: none")
        .at_least(0);
    return list;
}

OptionList ModelOptions::options() {
    OptionList list;
    list.logical("folder", &folder,
                 "model to start from: a Hugging Face folder, a checkpoint, or a run, which stands "
                 "for its newest checkpoint; empty: random weights of the sizes below");
    list.logical("dtype", &dtype,
                 "what the model computes in; bfloat16: activations, cached keys and values, and "
                 "copies of the weights that products read; weights themselves, sums, logits and "
                 "gradients of weights stay float32")
        .one_of({"float32", "bfloat16"});
    list.logical("family", &family, "layout of a random model")
        .one_of({"llama", "qwen2", "qwen3", "deepseek_v2", "deepseek_v3"});
    list.logical("vocab_size", &vocab_size,
                 "rows of the embedding; 0: as many as the tokenizer has ids")
        .at_least(0);
    list.logical("hidden_size", &hidden_size, "width of the residual stream").at_least(1);
    list.logical("num_hidden_layers", &num_hidden_layers, "decoder layers").at_least(1);
    list.logical("num_attention_heads", &num_attention_heads, "query heads").at_least(1);
    list.logical("num_key_value_heads", &num_key_value_heads, "key-value heads").at_least(1);
    list.logical("head_dim", &head_dim, "width of a head; 0: hidden_size / heads").at_least(0);
    list.logical("intermediate_size", &intermediate_size, "width of the MLP").at_least(1);
    list.logical("max_position_embeddings", &max_position_embeddings, "longest context, in tokens")
        .at_least(2);
    list.logical("rope_theta", &rope_theta, "base of the rotary frequencies").at_least(1);
    list.logical("rms_norm_eps", &rms_norm_eps, "added to the mean square").at_least(1e-20);
    list.logical("tie_word_embeddings", &tie_word_embeddings, "the head is the embedding");
    list.logical("q_lora_rank", &q_lora_rank,
                 "DeepSeek: width of compressed queries; 0: not compressed")
        .at_least(0);
    list.logical("kv_lora_rank", &kv_lora_rank, "DeepSeek: width of a token's latent").at_least(1);
    list.logical("qk_nope_head_dim", &qk_nope_head_dim, "DeepSeek: part of a head without rotation")
        .at_least(1);
    list.logical("qk_rope_head_dim", &qk_rope_head_dim, "DeepSeek: part of a head with rotation")
        .at_least(2);
    list.logical("v_head_dim", &v_head_dim, "DeepSeek: width of a head's values").at_least(1);
    list.logical("n_routed_experts", &n_routed_experts, "DeepSeek: experts a layer; 0: none")
        .at_least(0);
    list.logical("n_shared_experts", &n_shared_experts, "DeepSeek: experts that every token takes")
        .at_least(0);
    list.logical("num_experts_per_tok", &num_experts_per_tok, "DeepSeek: experts a token chooses")
        .at_least(1);
    list.logical("moe_intermediate_size", &moe_intermediate_size, "DeepSeek: width of an expert")
        .at_least(1);
    list.logical("first_k_dense_replace", &first_k_dense_replace,
                 "DeepSeek: layers from the first without experts")
        .at_least(0);
    list.logical("n_group", &n_group, "DeepSeek: groups of experts").at_least(1);
    list.logical("topk_group", &topk_group, "DeepSeek: groups that a token may choose from")
        .at_least(1);
    list.logical("routed_scaling_factor", &routed_scaling_factor,
                 "DeepSeek: what the experts' weights are multiplied by")
        .at_least(0);
    list.logical("num_nextn_predict_layers", &num_nextn_predict_layers,
                 "DeepSeek: modules behind the last layer that predict further tokens; an sft "
                 "stage trains one with mtp_loss_weight")
        .at_least(0);
    list.logical("reduction", &reduction, "radices of the tree of sums; empty: from the heads");
    list.logical("init_std", &init_std, "standard deviation of random weights").at_least(0);
    list.logical("init_scale_residual", &init_scale_residual,
                 "o_proj and down_proj start smaller, by the root of twice the layers");
    return list;
}

std::optional<stages::ModelSource> ModelOptions::source(io::FileSystem& fs) const {
    if (folder.empty()) return std::nullopt;
    return stages::ModelSource::open(fs, folder);
}

void ModelOptions::describe_deepseek(model::ModelConfig& config) const {
    const bool v3 = config.family == model::Family::deepseek_v3;
    if (!v3 && config.family != model::Family::deepseek_v2) return;
    config.latent = {.q_rank = q_lora_rank,
                     .kv_rank = kv_lora_rank,
                     .nope_dim = qk_nope_head_dim,
                     .rope_dim = qk_rope_head_dim,
                     .value_dim = v_head_dim};
    config.head_dim = qk_nope_head_dim + qk_rope_head_dim;
    config.kv_heads = config.heads;
    config.extra_layers = num_nextn_predict_layers;
    if (n_routed_experts == 0) return;
    config.experts = {.routed = n_routed_experts,
                      .shared = n_shared_experts,
                      .chosen = num_experts_per_tok,
                      .intermediate = moe_intermediate_size,
                      .first_dense = first_k_dense_replace,
                      .groups = n_group,
                      .kept_groups = topk_group,
                      .scoring = v3 ? kernels::Scoring::sigmoid : kernels::Scoring::softmax,
                      .method = v3            ? model::ChoiceMethod::noaux_tc
                                : n_group > 1 ? model::ChoiceMethod::group_limited_greedy
                                              : model::ChoiceMethod::greedy,
                      .normalise = v3,
                      .scale = routed_scaling_factor};
}

model::ModelConfig ModelOptions::config(const text::Tokenizer& tokenizer,
                                        const stages::ModelSource* source) const {
    model::ModelConfig config;
    if (source != nullptr) {
        config = source->config();
    } else {
        config.family = model::family_from_name(family, "[model.policy] family");
        config.vocab_size = vocab_size > 0 ? vocab_size : tokenizer.vocab_size();
        config.hidden = hidden_size;
        config.layers = num_hidden_layers;
        config.heads = num_attention_heads;
        config.kv_heads = num_key_value_heads;
        config.head_dim = head_dim > 0 ? head_dim : hidden_size / num_attention_heads;
        config.intermediate = intermediate_size;
        config.max_position = max_position_embeddings;
        config.rms_norm_eps = rms_norm_eps;
        config.initializer_range = init_std;
        config.tied = tie_word_embeddings;
        config.qkv_bias = config.family == model::Family::qwen2;
        config.qk_norm = config.family == model::Family::qwen3;
        config.rope.theta = rope_theta;
        describe_deepseek(config);
        config.bos = tokenizer.bos().value_or(-1);
        config.eos.assign(tokenizer.eos_ids().begin(), tokenizer.eos_ids().end());
    }
    if (!reduction.empty()) config.reduction.clear();
    for (const double radix : reduction) {
        require(radix >= 2.0 && radix == std::floor(radix),
                "[model.policy] reduction: {} is no radix", radix);
        config.reduction.push_back(static_cast<int>(radix));
    }
    config.dtype = model::dtype_from_name(dtype, "[model.policy] dtype");
    model::validate(config, folder.empty() ? "[model.policy]" : folder);
    require(tokenizer.vocab_size() <= config.vocab_size,
            "the tokenizer has {} ids, but the model's vocabulary {}: they do not belong together",
            tokenizer.vocab_size(), config.vocab_size);
    return config;
}

void ModelOptions::initialise(model::Weights& weights, std::uint64_t seed,
                              model::Compute& compute) const {
    model::initialise(weights, {.std = init_std, .scale_residual = init_scale_residual}, seed,
                      compute);
}

}  // namespace rankwise::app
