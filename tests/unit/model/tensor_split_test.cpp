// A model split over tensor ranks: the bits of one rank.
#include <gtest/gtest.h>

#include <mutex>

#include "parallel/thread_world.hpp"
#include "tests/support/pass_gradients.hpp"

namespace rankwise::model {
namespace {

using parallel::Communicator;

ModelConfig config_of(Family family, std::int64_t heads, std::int64_t kv_heads,
                      std::int64_t intermediate, std::int64_t vocab) {
    ModelConfig config = test::small_config(family);
    config.heads = heads;
    config.kv_heads = kv_heads;
    config.intermediate = intermediate;
    config.vocab_size = vocab;
    return config;
}

/// DeepSeek with leaves of shared experts that are empty, and a layer that is not read.
ModelConfig deepseek(Family family, std::int64_t heads) {
    ModelConfig config = config_of(family, heads, heads, 72, 100);
    config.experts.shared = 3;  // 36 columns
    config.layers = 3;
    config.extra_layers = 1;
    return config;
}

/// Llama with biases everywhere and leaves that are empty; Qwen2 with uneven leaves and tied
/// embeddings; Qwen3 with head norms; DeepSeek with and without compressed queries. Lists 2,2,2;
/// 2,7; 3,3; 3,2; 2,2; 2,2,2; 2,3. Some
/// of them in bf16 too.
std::vector<ModelConfig> split_configs() {
    ModelConfig llama = config_of(Family::llama, 8, 4, 40, 37);
    llama.qkv_bias = llama.o_bias = llama.mlp_bias = true;
    return {llama,
            test::in_bf16(llama),
            test::in_bf16(config_of(Family::qwen2, 9, 3, 160, 150)),
            test::in_bf16(config_of(Family::qwen3, 4, 2, 72, 100)),
            config_of(Family::qwen2, 14, 2, 300, 250),
            config_of(Family::qwen2, 9, 3, 160, 150),
            config_of(Family::qwen2, 6, 3, 96, 131),
            config_of(Family::qwen3, 4, 2, 72, 100),
            config_of(Family::qwen3, 4, 4, 72, 100),
            deepseek(Family::deepseek_v3, 8),
            deepseek(Family::deepseek_v2, 6)};
}

/// Two bundles, of which one has a prompt longer than a block of 64.
struct SplitTexts {
    SplitTexts() {
        for (int i = 0; i < 70; ++i) long_prompt.push_back((7 * i + 3) % 36);
        append(batch, {.prompt = long_prompt, .answers = {a, b}});
        append(batch, {.prompt = a, .answers = {c, b, a}});
    }
    std::vector<TokenId> long_prompt;
    std::vector<TokenId> a{1, 5, 9, 30, 2};
    std::vector<TokenId> b{33, 4, 4, 8};
    std::vector<TokenId> c{7};
    Microbatch batch;
};

/// One rank's model.
struct TensorRank : test::SmallModel {
    TensorRank(const ModelConfig& configuration, Communicator* tensor)
        : SmallModel(configuration, test::plain_device(), 1, 0.4, {.tensor = tensor}) {}
};

void on_every_degree(const ModelConfig& config,
                     const std::function<void(Communicator& axis)>& body) {
    for (const int degree : tensor_degrees(config)) {
        if (degree == 1) continue;
        SCOPED_TRACE(fmt::format("{} {} / {} heads on {} ranks", name_of(config.family),
                                 config.heads, config.kv_heads, degree));
        parallel::ThreadWorld(degree).run(body);
    }
}

TEST(TensorSplit, PartsCoverEveryParameterOnceAndTheDigestIsThatOfOneRank) {
    for (const ModelConfig& config : split_configs()) {
        TensorRank alone(config, nullptr);
        const std::vector<UInt128> expected = alone.weights.digests(alone.compute);
        on_every_degree(config, [&](Communicator& axis) {
            TensorRank rank(config, &axis);
            EXPECT_EQ(rank.weights.digests(rank.compute), expected);
            for (ParameterId id = 0; id < rank.weights.table().count(); ++id) {
                const std::int64_t mine = rank.weights.counts(id) ? rank.weights.box(id).size() : 0;
                EXPECT_EQ(axis.all_reduce_sum("sizes", mine),
                          rank.weights.table()[id].shape.size());
            }
        });
    }
}

TEST(TensorSplit, LogprobsAndEntropiesAreThoseOfOneRankBitForBit) {
    const SplitTexts texts;
    for (const ModelConfig& config : split_configs()) {
        const HeadOptions head{.ids = config.vocab_size - 1, .temperature = 0.7F};
        TensorRank alone(config, nullptr);
        const Logprobs expected = score(alone.compute, alone.weights, head, texts.batch);
        on_every_degree(config, [&](Communicator& axis) {
            TensorRank rank(config, &axis);
            const Logprobs split = score(rank.compute, rank.weights, head, texts.batch);
            EXPECT_EQ(split.logprob, expected.logprob);
            EXPECT_EQ(split.entropy, expected.entropy);
        });
    }
}

TEST(TensorSplit, GradientsAreThoseOfOneRankBitForBit) {
    const SplitTexts texts;
    for (const ModelConfig& config : split_configs()) {
        const HeadOptions head{.ids = config.vocab_size - 1, .block_bytes = 4096};
        TensorRank alone(config, nullptr);
        test::PassGradients expected(alone);
        test::run_backward(alone, head, texts.batch, false, expected);
        std::vector<std::vector<float>> whole;
        for (ParameterId id = 0; id < alone.weights.table().count(); ++id)
            whole.push_back(expected.values(id));
        on_every_degree(config, [&](Communicator& axis) {
            TensorRank rank(config, &axis);
            test::PassGradients sink(rank);
            test::run_backward(rank, head, texts.batch, false, sink);
            for (ParameterId id = 0; id < rank.weights.table().count(); ++id) {
                const Box box = rank.weights.box(id);
                const Parameter& parameter = rank.weights.table()[id];
                std::vector<float> part;
                for (std::int64_t row = box.rows.begin; row < box.rows.end; ++row) {
                    const auto first =
                        whole[static_cast<std::size_t>(id)].begin() + row * parameter.shape.cols;
                    part.insert(part.end(), first + box.cols.begin, first + box.cols.end);
                }
                EXPECT_EQ(sink.values(id), part) << parameter.name << " on rank " << axis.rank();
            }
        });
    }
}

TEST(TensorSplit, DegreesAreThoseOfTheReductionListThatHoldWholeKvHeadsOrShareOne) {
    using Degrees = std::vector<int>;
    const auto degrees = [](std::int64_t heads, std::int64_t kv_heads, std::vector<int> list = {}) {
        ModelConfig config = config_of(Family::llama, heads, kv_heads, 64, 64);
        config.reduction = std::move(list);
        return tensor_degrees(config);
    };
    EXPECT_EQ(degrees(32, 8), (Degrees{1, 2, 4, 8}));
    EXPECT_EQ(degrees(14, 2), (Degrees{1, 2, 14}));
    EXPECT_EQ(degrees(9, 3), (Degrees{1, 3, 9}));
    EXPECT_EQ(degrees(12, 2), (Degrees{1, 2, 4, 12}));
    EXPECT_EQ(degrees(17, 17), (Degrees{1}));
    EXPECT_EQ(degrees(6, 3, {2, 3}), (Degrees{1})) << "two ranks would cut a group of heads";
    EXPECT_EQ(degrees(6, 3, {6}), (Degrees{1})) << "six ranks would add dk in another order";
}

}  // namespace
}  // namespace rankwise::model
