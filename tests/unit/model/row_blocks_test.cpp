// Rows in blocks that threads take through a layer: the bits of all rows on one thread.
#include <gtest/gtest.h>

#include "tests/support/pass_gradients.hpp"

namespace rankwise::model {
namespace {

/// A dense one with biases, one whose rows lie 2 KiB apart, head norms, latent attention with
/// experts; some in bf16.
std::vector<ModelConfig> configs() {
    ModelConfig llama = test::small_config(Family::llama);
    llama.qkv_bias = llama.o_bias = llama.mlp_bias = true;
    ModelConfig wide = test::small_config(Family::qwen2);
    wide.intermediate = 512;
    return {llama,
            test::in_bf16(llama),
            wide,
            test::in_bf16(test::small_config(Family::qwen3)),
            test::small_config(Family::qwen3),
            test::small_config(Family::deepseek_v3)};
}

Microbatch many_rows() {
    Microbatch batch;
    for (int sequence = 0; sequence < 9; ++sequence) {
        std::vector<TokenId> tokens;
        for (int i = 0; i < 60 + sequence; ++i) tokens.push_back((7 * i + 5 * sequence + 3) % 36);
        append_sequence(batch, tokens, 3 + sequence);
    }
    return batch;
}

struct Passed {
    std::vector<float> logprobs;
    std::vector<std::vector<float>> gradients;
};

Passed passed(const ModelConfig& config, int threads, bool checked, std::int64_t recompute) {
    test::SmallModel model(config, {"", {.threads = threads, .checked = checked}});
    const HeadOptions head{.ids = config.vocab_size};
    const Microbatch batch = many_rows();
    test::PassGradients gradients(model);
    test::run_backward(model, head, batch, recompute, gradients);
    return {score(model.compute, model.weights, head, batch).logprob, gradients.values()};
}

TEST(RowBlocks, ThreadsGiveTheBitsOfOne) {
    for (const ModelConfig& config : configs()) {
        SCOPED_TRACE(fmt::format("{}, {}", name_of(config.family), name_of(config.dtype)));
        const Passed expected = passed(config, 1, false, 0);
        for (const int threads : {2, 3}) {
            const Passed found = passed(config, threads, threads == 3, threads == 3 ? 1 : 0);
            EXPECT_EQ(found.logprobs, expected.logprobs);
            EXPECT_EQ(found.gradients, expected.gradients);
        }
    }
}

}  // namespace
}  // namespace rankwise::model
