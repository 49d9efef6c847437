#include "src/app/bench_models.hpp"

#include <algorithm>

#include "src/base/philox.hpp"

namespace rankwise::app {
namespace {

model::ModelConfig llama(std::int64_t vocabulary, std::int64_t hidden, std::int64_t layers,
                         std::int64_t heads, std::int64_t kv_heads, std::int64_t intermediate,
                         std::int64_t context) {
    model::ModelConfig config;
    config.family = model::Family::llama;
    config.vocab_size = vocabulary;
    config.hidden = hidden;
    config.layers = layers;
    config.heads = heads;
    config.kv_heads = kv_heads;
    config.head_dim = hidden / heads;
    config.intermediate = intermediate;
    config.max_position = context;
    config.tied = true;
    return config;
}

/// Operations of attention over one pass: q k and p v, a multiply-add an element.
double attention_flop(const model::ModelConfig& config, double tokens, double context) {
    return 4.0 * static_cast<double>(config.layers * config.q_size()) * tokens * context;
}

/// Bytes of an element of the weights that are read, of keys and of values.
double element_bytes(const model::ModelConfig& config) {
    return static_cast<double>(size_of(config.dtype));
}

/// Bytes of a position's keys and values.
double cache_bytes(const model::ModelConfig& config) {
    return element_bytes(config) * 2.0 * static_cast<double>(config.layers * config.kv_size());
}

}  // namespace

std::vector<BenchModel> bench_models() {
    std::vector<BenchModel> models{{.name = "llama-3m",
                                    .config = llama(64, 256, 4, 4, 4, 688, 256),
                                    .update_rows = 16,
                                    .update_tokens = 128,
                                    .prompts = 8,
                                    .samples = 8,
                                    .prompt_tokens = 53,
                                    .new_tokens = 64},
                                   {.name = "llama-30m",
                                    .config = llama(8192, 512, 8, 8, 8, 1408, 1024),
                                    .update_rows = 8,
                                    .update_tokens = 256,
                                    .prompts = 8,
                                    .samples = 8,
                                    .prompt_tokens = 53,
                                    .new_tokens = 64},
                                   {.name = "smollm2-135m-shape",
                                    .config = llama(49152, 576, 30, 9, 3, 1536, 8192),
                                    .update_rows = 4,
                                    .update_tokens = 256,
                                    .prompts = 8,
                                    .samples = 8,
                                    .prompt_tokens = 128,
                                    .new_tokens = 64,
                                    .whole_steps = false}};
    models.back().config.rope.theta = 100000.0;
    models.back().config.rms_norm_eps = 1e-5;
    return models;
}

void fill_for_bench(model::Weights& weights, model::Compute& compute) {
    constexpr std::int64_t kTable = 65536;
    std::vector<float> table;
    for (std::uint32_t i = 0; std::ssize(table) < kTable; ++i) {
        for (const std::uint32_t word : philox4x32({i, 0, 0, 0}, {1, 2}))
            table.push_back(0.07F * (uniform_open(word) - 0.5F));  // as wide as normal with 0.02
    }
    const std::vector<float> ones(
        static_cast<std::size_t>(weights.config().hidden + weights.config().head_dim), 1.0F);
    for (ParameterId id = 0; id < weights.table().count(); ++id) {
        const DeviceSpan<float> all = weights.master_span(id);
        const bool norm = weights.table()[id].name.find("norm") != std::string::npos;
        const std::vector<float>& from = norm ? ones : table;
        // Another place of the table each time, so that no two rows are alike.
        for (std::int64_t at = 0, shift = 0; at < all.size(); shift = (shift + 977) % 4096) {
            const std::int64_t begin = norm ? 0 : shift;
            const std::int64_t count = std::min(all.size() - at, std::ssize(from) - begin);
            compute.device.kernels::Memory::upload<float>(
                std::span(from).subspan(static_cast<std::size_t>(begin),
                                        static_cast<std::size_t>(count)),
                all.subspan(at, count), compute.stream);
            at += count;
        }
    }
    weights.pack(compute);
}

double matmul_parameters(const model::ModelConfig& config) {
    const auto hidden = static_cast<double>(config.hidden);
    const double layer =
        hidden * static_cast<double>(config.qkv_size() + config.q_size() + 3 * config.intermediate);
    return static_cast<double>(config.layers) * layer +
           hidden * static_cast<double>(config.vocab_size);
}

BenchWork forward_work(const model::ModelConfig& config, double tokens, double context) {
    return {
        .flop = 2.0 * matmul_parameters(config) * tokens + attention_flop(config, tokens, context),
        .bytes = element_bytes(config) * matmul_parameters(config)};
}

BenchWork update_work(const model::ModelConfig& config, double rows, double tokens) {
    return {.flop = 3.0 * forward_work(config, rows * tokens, (tokens + 1.0) / 2.0).flop};
}

BenchWork decode_work(const model::ModelConfig& config, double answers, double prompts,
                      double shared, double context) {
    return {.flop = forward_work(config, answers, context).flop,
            .bytes = element_bytes(config) * matmul_parameters(config) +
                     cache_bytes(config) * (prompts * shared + answers * (context - shared))};
}

std::vector<BenchWork> generation_work(const BenchModel& model) {
    const auto prompts = static_cast<double>(model.prompts);
    const auto prompt = static_cast<double>(model.prompt_tokens);
    const double answers = prompts * static_cast<double>(model.samples);
    std::vector<BenchWork> parts;
    // The head is not needed for prompts: their last token is the answers' first step.
    BenchWork prefill = forward_work(model.config, prompts * (prompt - 1.0), prompt / 2.0);
    prefill.flop -= 2.0 * prompts * (prompt - 1.0) *
                    static_cast<double>(model.config.hidden * model.config.vocab_size);
    parts.push_back(prefill);
    for (std::int64_t step = 0; step < model.new_tokens; ++step) {
        parts.push_back(decode_work(model.config, answers, prompts, prompt,
                                    prompt + static_cast<double>(step)));
    }
    return parts;
}

}  // namespace rankwise::app
