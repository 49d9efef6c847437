// A run in small: a tokenizer of a few words, problems without end, a random model, and what a
// stage needs around them.
#pragma once

#include <gtest/gtest.h>

#include <mutex>

#include "parallel/thread_world.hpp"
#include "src/stages/stage.hpp"
#include "tests/support/small_model.hpp"

namespace rankwise::test {

/// Words that are whole answers, so that a vote over answers of one token can be counted by hand.
inline constexpr const char* kToyTokenizer = R"({
 "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
 "added_tokens": [
  {"id": 0, "content": "<pad>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true},
  {"id": 1, "content": "<eos>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true}],
 "pre_tokenizer": {"type": "WhitespaceSplit"},
 "post_processor": null,
 "decoder": {"type": "Fuse"},
 "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {
  "<pad>": 0, "<eos>": 1, "go": 2,
  "<think>a</think><answer>7</answer>": 3,
  "<think>b</think><answer>7</answer>": 4,
  "<think>c</think><answer>5</answer>": 5,
  "8": 6, "9": 7, "9\u0020": 8, "<answer>7</answer>": 9}}})";
inline constexpr const char* kToyTokenizerConfig = R"({"eos_token": "<eos>"})";
inline constexpr TokenId kToyEos = 1;
inline constexpr std::int64_t kToyIds = 10;

/// Problem i is asked by one to five words; `count` of them, or no end.
class ToyProblems final : public tasks::Dataset {
  public:
    explicit ToyProblems(std::optional<std::int64_t> count) : count_(count) {}
    [[nodiscard]] std::optional<std::int64_t> size() const override { return count_; }
    [[nodiscard]] tasks::Problem problem(std::int64_t index) const override {
        tasks::Problem problem{.id = static_cast<std::uint64_t>(1000 + index), .task = "toy"};
        for (std::int64_t i = 0; i <= index % 5; ++i) problem.prompt += i == 0 ? "go" : " 8";
        return problem;
    }

  private:
    std::optional<std::int64_t> count_;
};

inline stages::TaskData toy_task() {
    return {.kind = "toy",
            .tokenizer = text::Tokenizer::from_json(kToyTokenizer, "toy", kToyTokenizerConfig),
            .train = std::make_unique<ToyProblems>(std::nullopt),
            .held_out = std::make_unique<ToyProblems>(40)};
}

/// One rank of a run. Every rank makes the same model.
struct ToyRun {
    explicit ToyRun(parallel::Communicator& world, const stages::PhysicalOptions& physical = {},
                    std::uint64_t seed = 5)
        : ToyRun(world, {.data = world.size()}, config(), physical, seed) {}
    ToyRun(parallel::Communicator& world, const parallel::MeshShape& shape,
           const model::ModelConfig& configuration, const stages::PhysicalOptions& physical,
           std::uint64_t seed = 5)
        : model(configuration),
          mesh(world, shape),
          environment{.compute = model.compute,
                      .mesh = mesh,
                      .models = models,
                      .task = task,
                      .log = log,
                      .clock = clock,
                      .seed = seed,
                      .physical = physical} {
        auto& policy = models.add(
            "policy", std::make_unique<model::Weights>(*model.device, model.config,
                                                       model::Passes::forward_and_backward,
                                                       environment.model_axes()));
        model::initialise(policy, {.std = 0.4, .scale_residual = true}, 1, model.compute);
    }
    [[nodiscard]] UInt128 digest(const std::string& name) {
        return models.at(name).digest(model.compute);
    }

    static model::ModelConfig config() {
        model::ModelConfig config = small_config();
        config.vocab_size = kToyIds + 3;
        config.layers = 1;
        return config;
    }
    SmallModel model;
    parallel::Mesh mesh;
    model::ModelSet models;
    stages::TaskData task = toy_task();
    Log log;
    SteadyClock clock;
    stages::Environment environment;
};

/// Runs `body(run)` on one rank.
template <class Body>
void on_one_rank(const Body& body) {
    const auto world = parallel::make_self_communicator({});
    ToyRun run(*world);
    body(run);
}

/// The value of a metric; fails the test if there is none.
inline double metric(const io::MetricLine& line, const std::string& name) {
    for (const auto& [key, value] : line) {
        if (key != name) continue;
        return std::visit(
            [](const auto& held) -> double {
                if constexpr (std::is_arithmetic_v<std::decay_t<decltype(held)>>) {
                    return static_cast<double>(held);
                } else {
                    return std::nan("");
                }
            },
            value);
    }
    ADD_FAILURE() << "no metric " << name;
    return std::nan("");
}

/// Metrics that do not depend on how long something took.
inline io::MetricLine without_times(io::MetricLine line) {
    std::erase_if(line, [](const auto& entry) {
        return entry.first.starts_with("time/") || entry.first == "step_time" ||
               entry.first == "tokens_per_second";
    });
    return line;
}

}  // namespace rankwise::test
