// A small model with random weights on a device: what tests of rollout, update and stages run on.
#pragma once

#include <memory>

#include "parallel/self_communicator.hpp"
#include "src/model/initialise.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/reference_model.hpp"

namespace rankwise::test {

/// The plainest device: one thread, an instruction set chosen by the machine.
inline DeviceCase plain_device() {
    return {"plain", {.isa = kernels::Isa::automatic, .threads = 1, .checked = false}};
}

/// Two layers (of DeepSeek the second with experts), grouped query heads, a vocabulary that is no
/// multiple of anything.
inline model::ModelConfig small_config(model::Family family = model::Family::qwen2) {
    model::ModelConfig config;
    config.family = family;
    config.vocab_size = 37;
    config.hidden = 16;
    config.layers = 2;
    config.heads = 4;
    config.kv_heads = 2;
    config.head_dim = 8;
    config.intermediate = 40;
    config.max_position = 256;
    config.tied = family == model::Family::qwen2;
    config.qkv_bias = family == model::Family::qwen2;
    config.qk_norm = family == model::Family::qwen3;
    const bool v3 = family == model::Family::deepseek_v3;
    if (!v3 && family != model::Family::deepseek_v2) return config;
    config.latent = {
        .q_rank = v3 ? 10 : 0, .kv_rank = 12, .nope_dim = 6, .rope_dim = 4, .value_dim = 5};
    config.head_dim = 10;
    config.kv_heads = config.heads;
    config.experts = {.routed = 8,
                      .shared = v3 ? 1 : 2,
                      .chosen = 3,
                      .intermediate = 12,
                      .first_dense = 1,
                      .groups = v3 ? 4 : 1,
                      .kept_groups = v3 ? 2 : 1,
                      .scoring = v3 ? kernels::Scoring::sigmoid : kernels::Scoring::softmax,
                      .method = v3 ? model::ChoiceMethod::noaux_tc : model::ChoiceMethod::greedy,
                      .normalise = v3,
                      .scale = v3 ? 2.5 : 1.0};
    return config;
}

/// The same, computing in bf16.
inline model::ModelConfig in_bf16(model::ModelConfig config) {
    config.dtype = DType::bf16;
    return config;
}

/// Weights on a device of their own, with what computes with them. Random ones are wide, so that
/// attention and the next token's distribution are far from uniform.
struct SmallModel {
    explicit SmallModel(const model::ModelConfig& configuration,
                        const DeviceCase& device_case = plain_device(), std::uint64_t seed = 1,
                        double std = 0.4, const model::ModelAxes& axes = {})
        : device(device_case),
          arena(*device),
          compute{*device, device.stream(), arena},
          config(configuration),
          weights(*device, config, model::Passes::forward_and_backward, axes) {
        model::initialise(weights, {.std = std, .scale_residual = true}, seed, compute);
    }
    SmallModel(const SmallModel&) = delete;
    SmallModel& operator=(const SmallModel&) = delete;

    [[nodiscard]] std::vector<float> values(model::Weights& of, ParameterId id) const {
        return device.get(DeviceSpan<const float>(of.master_span(id)));
    }
    [[nodiscard]] std::vector<float> values(ParameterId id) { return values(weights, id); }
    /// The same weights in double.
    [[nodiscard]] reference::Model reference_model() {
        reference::Model reference{config, {}};
        for (ParameterId id = 0; id < weights.table().count(); ++id) {
            const std::vector<float> all = values(id);
            reference.weights[weights.table()[id].name] = {all.begin(), all.end()};
        }
        return reference;
    }
    /// Replaces one parameter; the packed copies follow.
    void set(ParameterId id, const std::vector<float>& to) {
        device->upload(std::span<const float>(to), weights.master_span(id), device.stream());
        weights.pack(compute);
    }

    DeviceUnderTest device;
    kernels::Arena arena;
    model::Compute compute;
    model::ModelConfig config;
    model::Weights weights;
    std::unique_ptr<parallel::Communicator> self = parallel::make_self_communicator({}, "data");
};

}  // namespace rankwise::test
