// What of a configuration is the model's own: what its text keeps, and when two are of one model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error.hpp"
#include "src/model/config.hpp"
#include "tests/support/small_model.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ModelConfig config_of(Family family) {
    ModelConfig config = test::small_config(family);
    config.hidden = 24;
    config.layers = 3;
    config.heads = 6;
    if (config.latent.used()) config.kv_heads = 6;
    config.max_position = 99;
    config.rms_norm_eps = 1.0 / 3.0 * 1e-5;  // every digit counts
    config.initializer_range = 0.1;
    config.rope.theta = 1e6 / 7.0;
    config.bos = 1;
    config.eos = {2, 5};
    return config;
}

ModelConfig back(const ModelConfig& config) {
    return config_from_json(to_json(config), "config.json");
}

TEST(ConfigText, SaysWhatAModelComputesInAndThatMakesNoOtherModel) {
    const ModelConfig config = test::in_bf16(config_of(Family::qwen3));
    EXPECT_EQ(back(config), config);
    EXPECT_THAT(to_json(config), HasSubstr("\"rankwise_dtype\": \"bfloat16\""));
    EXPECT_EQ(to_json(config_of(Family::qwen3)).find("rankwise_dtype"), std::string::npos);
    EXPECT_THAT(differences(config, config_of(Family::qwen3)), IsEmpty());
}

TEST(ConfigText, AModelThatCannotComputeInATypeIsRefused) {
    EXPECT_EQ(dtype_from_name("float32", "here"), DType::f32);
    EXPECT_EQ(dtype_from_name("bfloat16", "here"), DType::bf16);
    EXPECT_THROW_WITH((void)dtype_from_name("float16", "here"), BadInput,
                      "here: a model cannot compute in float16; expected float32 or bfloat16");
    EXPECT_THROW_WITH(validate(test::in_bf16(config_of(Family::deepseek_v3)), "here"), BadInput,
                      "here: a deepseek_v3 model computes in float32 alone in this version");
}

TEST(ConfigText, OfEveryFamilyAndRotaryFormReadsBackToTheBit) {
    for (const Family family :
         {Family::llama, Family::qwen2, Family::qwen3, Family::deepseek_v2, Family::deepseek_v3}) {
        EXPECT_EQ(back(config_of(family)), config_of(family)) << name_of(family);
    }
    for (const RopeScaling scaling :
         {RopeScaling::linear, RopeScaling::dynamic, RopeScaling::llama3, RopeScaling::yarn}) {
        ModelConfig config = config_of(Family::llama);
        config.qkv_bias = config.o_bias = config.mlp_bias = true;
        config.rope.scaling = scaling;
        config.rope.factor = 4.0 / 3.0;
        config.rope.original_max_position = 50;
        if (scaling == RopeScaling::llama3) {
            config.rope.low_freq_factor = 1.5;
            config.rope.high_freq_factor = 3.5;
        }
        if (scaling == RopeScaling::yarn) {
            config.rope.beta_fast = 31.0;
            config.rope.beta_slow = 2.0;
            config.rope.mscale = 0.7;
            config.rope.mscale_all_dim = 0.8;
            config.rope.attention_factor = 1.1;
        }
        EXPECT_EQ(back(config), config) << to_json(config);
    }
}

TEST(ConfigText, KeepsAReductionListOfItsOwnAndNamesNoneThatFollowsFromTheHeads) {
    ModelConfig config = config_of(Family::llama);
    EXPECT_THAT(to_json(config), testing::Not(HasSubstr("reduction")));
    config.reduction = {3, 2};
    EXPECT_EQ(back(config).reduction, (std::vector<int>{3, 2}));
    EXPECT_EQ(back(config).tree().leaves(), 6);
}

TEST(ConfigText, SaysTheTypeOfTheTensorsBesideIt) {
    const ModelConfig config = config_of(Family::llama);
    EXPECT_THAT(to_json(config), HasSubstr("\"torch_dtype\": \"float32\""));
    EXPECT_THAT(to_json(config, DType::bf16), HasSubstr("\"torch_dtype\": \"bfloat16\""));
    EXPECT_THROW(static_cast<void>(to_json(config, DType::f16)), InternalError);
}

TEST(ConfigDifferences, AreWhatChangesWhatAModelComputes) {
    const ModelConfig config = config_of(Family::qwen3);
    ModelConfig other = config;
    other.eos = {7};
    other.bos = 3;
    other.initializer_range = 0.5;
    other.reduction = {2};
    EXPECT_THAT(differences(config, other), IsEmpty());
    other.layers = 4;
    other.rope.theta = 500.0;
    other.rope.scaling = RopeScaling::linear;
    other.rope.original_max_position = 99;
    other.rope.factor = 2.0;
    EXPECT_THAT(differences(config, other),
                ElementsAre("num_hidden_layers is 3 and 4",
                            "rope_scaling is null and {\"factor\":2.0,\"original_max_position_"
                            "embeddings\":99,\"rope_type\":\"linear\"}",
                            "rope_theta is 142857.14285714287 and 500.0"));
    EXPECT_THAT(differences(config, config_of(Family::llama)),
                ElementsAre("architectures is [\"Qwen3ForCausalLM\"] and [\"LlamaForCausalLM\"]",
                            "mlp_bias is null and false", "model_type is \"qwen3\" and \"llama\""));
}

}  // namespace
}  // namespace rankwise::model
