// The files of training_goldens, and an update over one's sequences.
#pragma once

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/model/initialise.hpp"
#include "src/update/trainer.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/test_data.hpp"

namespace rankwise::test {

struct Golden {
    std::string name;
    nlohmann::json json;
    std::vector<std::vector<TokenId>> sequences;
};

/// All there are; none without a folder of test data.
inline std::vector<Golden> training_goldens() {
    std::vector<Golden> found;
    const auto folder = data_folder();
    if (!folder) return found;
    for (const auto& entry : std::filesystem::directory_iterator(*folder / "training_goldens")) {
        if (entry.path().extension() != ".json") continue;
        std::ifstream file(entry.path());
        Golden golden{entry.path().stem().string(), nlohmann::json::parse(file), {}};
        golden.sequences = golden.json.at("sequences").get<std::vector<std::vector<TokenId>>>();
        found.push_back(std::move(golden));
    }
    return found;
}

inline model::ModelConfig config_of(const Golden& golden, DType dtype = DType::f32) {
    model::ModelConfig config = model::read_config(*data_folder() / "models" / golden.name);
    config.dtype = dtype;
    return config;
}

/// A golden's model, loaded from its folder: the part of it that a rank holds.
struct GoldenModel {
    GoldenModel(const DeviceCase& device_case, const Golden& golden,
                const model::ModelAxes& axes = {}, DType dtype = DType::f32)
        : device(device_case),
          arena(*device),
          compute{*device, device.stream(), arena},
          config(config_of(golden, dtype)),
          weights(*device, config, model::Passes::forward_and_backward, axes) {
        model::load_folder(weights, *data_folder() / "models" / golden.name, compute);
    }
    DeviceUnderTest device;
    kernels::Arena arena;
    model::Compute compute;
    model::ModelConfig config;
    model::Weights weights;
};

/// Steps over a golden's sequences, each predicted from its first token on, with the mean loss of
/// all tokens and the optimizer that the golden names.
class GoldenUpdate {
  public:
    GoldenUpdate(GoldenModel& model, const Golden& golden, parallel::Communicator& data,
                 update::TrainerOptions options)
        : golden_(golden), trainer_(model.compute, model.weights, data, options, adamw(golden)) {
        std::vector<update::SampleSize> sizes;
        for (std::size_t s = 0; s < golden.sequences.size(); ++s) {
            const auto size = static_cast<std::int64_t>(golden.sequences[s].size());
            sizes.push_back({static_cast<std::int64_t>(s), 1, size - 1});
            tokens_ += static_cast<double>(size - 1);
        }
        plan_ = update::plan_minibatch(sizes, kPlan);
    }

    [[nodiscard]] update::Trainer& trainer() { return trainer_; }
    /// Of the last step, where the head is computed.
    [[nodiscard]] double loss() const { return loss_; }
    /// Log-probabilities of each sample in the last step, where the head is computed.
    [[nodiscard]] const std::map<std::int64_t, std::vector<float>>& logprobs() const {
        return logprobs_;
    }

    /// @return the gradient norm before clipping
    double step() {
        loss_ = 0.0;
        const update::MinibatchCallbacks callbacks{
            .text =
                [&](std::int64_t sample) {
                    const std::span<const TokenId> all(
                        golden_.sequences[static_cast<std::size_t>(sample)]);
                    return update::SampleText{all.first(1), all.subspan(1)};
                },
            .loss =
                [&](std::int64_t sample, std::span<const float> logprob, std::span<const float>,
                    std::span<float> coefficient) {
                    logprobs_[sample] = {logprob.begin(), logprob.end()};
                    for (std::size_t i = 0; i < logprob.size(); ++i) {
                        loss_ -= static_cast<double>(logprob[i]) / tokens_;
                        coefficient[i] = static_cast<float>(-1.0 / tokens_);
                    }
                }};
        return trainer_.step(plan_, kPlan, callbacks, golden_.json.at("optimizer").at("lr"));
    }

  private:
    /// Several chunks, so that the order of chunks is used.
    static constexpr update::PlanOptions kPlan{
        .chunk_tokens = 16, .chunk_multiple = 2, .share_prompts = false};

    static update::AdamwOptions adamw(const Golden& golden) {
        const nlohmann::json& adam = golden.json.at("optimizer");
        return {.beta1 = adam.at("betas")[0],
                .beta2 = adam.at("betas")[1],
                .eps = adam.at("eps"),
                .weight_decay = adam.at("weight_decay"),
                .decay_vectors = true,
                .max_grad_norm = adam.at("clip_global_norm")};
    }

    const Golden& golden_;
    double tokens_ = 0.0;
    update::MinibatchPlan plan_;
    update::Trainer trainer_;
    double loss_ = 0.0;
    std::map<std::int64_t, std::vector<float>> logprobs_;
};

}  // namespace rankwise::test
