// DeepSeek's configurations, parameters and files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "io/safetensors_writer.hpp"
#include "src/model/attention_pass.hpp"
#include "src/model/expert_layer.hpp"
#include "tests/support/small_model.hpp"
#include "tests/support/throws.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::model {
namespace {

using testing::ElementsAre;

/// DeepSeek-V3's config.json, with some keys in front of it (the last of equal keys counts).
std::string v3(const std::string& more = {}) {
    return R"({"model_type":"deepseek_v3","hidden_size":7168,"intermediate_size":18432,
        "num_hidden_layers":61,"num_attention_heads":128,"num_key_value_heads":128,
        "vocab_size":129280,"max_position_embeddings":163840,"q_lora_rank":1536,
        "kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,
        "n_routed_experts":256,"n_shared_experts":1,"num_experts_per_tok":8,
        "moe_intermediate_size":2048,"first_k_dense_replace":3,"moe_layer_freq":1,"n_group":8,
        "topk_group":4,"scoring_func":"sigmoid","topk_method":"noaux_tc","norm_topk_prob":true,
        "routed_scaling_factor":2.5,"num_nextn_predict_layers":1,"rms_norm_eps":1e-06,
        "rope_theta":10000,"rope_scaling":{"type":"yarn","factor":40,"beta_fast":32,"beta_slow":1,
        "mscale":1.0,"mscale_all_dim":1.0,"original_max_position_embeddings":4096})" +
           more + "}";
}

std::string v2_lite(const std::string& more = {}) {
    return R"({"model_type":"deepseek_v2","hidden_size":2048,"intermediate_size":10944,
        "num_hidden_layers":27,"num_attention_heads":16,"num_key_value_heads":16,
        "vocab_size":102400,"max_position_embeddings":163840,"q_lora_rank":null,
        "kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,
        "n_routed_experts":64,"n_shared_experts":2,"num_experts_per_tok":6,
        "moe_intermediate_size":1408,"first_k_dense_replace":1,"n_group":1,"topk_group":1,
        "scoring_func":"softmax","topk_method":"greedy","norm_topk_prob":false,
        "routed_scaling_factor":1.0,"rope_theta":10000,"rope_scaling":{"type":"yarn","factor":40,
        "mscale":0.707,"mscale_all_dim":0.707,"original_max_position_embeddings":4096})" +
           more + "}";
}

ModelConfig config_of(const std::string& text) {
    return config_from_json(text, "config.json");
}

/// Of the model itself, or of its layers that predict further tokens.
std::int64_t elements(const ModelConfig& config, bool itself) {
    std::int64_t sum = 0;
    const DecoderParameters parameters = decoder_parameters(config);
    for (const Parameter& parameter : parameters.table.rows()) {
        const bool extra =
            parameter.name.starts_with(fmt::format("model.layers.{}.", config.layers));
        if (extra != itself) sum += parameter.shape.size();
    }
    return sum;
}

TEST(DeepSeek, ParametersOfTheRealModelsAreCountedToTheLast) {
    EXPECT_EQ(elements(config_of(v3()), true), 671'026'419'200);
    // One more layer with experts, two norms and what joins them; copies of embedding and head.
    const std::int64_t copies = 2 * std::int64_t{129280} * 7168;
    EXPECT_NEAR(static_cast<double>(elements(config_of(v3()), false) - copies), 11.61e9, 0.01e9);
    EXPECT_EQ(elements(config_of(v2_lite()), true), 15'706'484'224);
}

TEST(DeepSeek, OnlyLayersBehindTheFirstDenseOnesHaveExperts) {
    const ModelConfig config = config_of(v3());
    EXPECT_FALSE(config.has_experts(2));
    EXPECT_TRUE(config.has_experts(3));
    const DecoderParameters parameters = decoder_parameters(config);
    EXPECT_EQ(parameters.layers[2].router, -1);
    EXPECT_TRUE(parameters.layers[2].experts.empty());
    EXPECT_EQ(parameters.layers[3].gate, -1);
    EXPECT_EQ(parameters.layers[3].experts.size(), 256U);
    EXPECT_TRUE(parameters.table.has("model.layers.3.mlp.experts.255.down_proj.weight"));
    EXPECT_FALSE(parameters.table[parameters.layers[3].router_bias].trained);
    EXPECT_FALSE(parameters.table[parameters.table.id("model.layers.61.eh_proj.weight")].trained);
    const ModelConfig every_third = config_of(v3(R"(,"moe_layer_freq":3)"));
    EXPECT_TRUE(every_third.has_experts(3));
    EXPECT_FALSE(every_third.has_experts(4));
}

TEST(DeepSeek, SumsAreTreesOverTheHeads) {
    EXPECT_EQ(config_of(v3()).tree().radices, (std::vector<int>{2, 2, 2}));
    EXPECT_EQ(config_of(v2_lite()).tree().radices, (std::vector<int>{2, 2, 2}));
    EXPECT_EQ(tensor_degrees(config_of(v3())), (std::vector<int>{1, 2, 4, 8}));
}

TEST(DeepSeek, ConfigurationsReadBackToTheBit) {
    for (const std::string& text : {v3(), v2_lite(), v2_lite(R"(,"n_routed_experts":null)")}) {
        const ModelConfig config = config_of(text);
        EXPECT_EQ(config_of(to_json(config)), config) << to_json(config);
    }
    EXPECT_THAT(
        differences(config_of(v3()), config_of(v3(R"(,"topk_group":3,"kv_lora_rank":256)"))),
        ElementsAre("kv_lora_rank is 512 and 256", "topk_group is 4 and 3"));
}

TEST(DeepSeek, ScoresAreScaledByTheSizeOfAQueryAndYarnsMscale) {
    const auto scale = [](ModelConfig config) {
        config.layers = 1;
        config.hidden = 8;
        config.heads = config.kv_heads = 2;
        config.vocab_size = config.max_position = 4;
        config.experts = {};
        config.extra_layers = 0;
        const test::DeviceUnderTest device(test::plain_device());
        return attention_shape(Weights(*device, config, Passes::forward)).scale;
    };
    EXPECT_NEAR(scale(config_of(v3())), 0.1352338, 1e-7);
    EXPECT_NEAR(scale(config_of(v2_lite())), 0.1147214, 1e-7);
}

TEST(DeepSeek, WhatIsNotKnownIsRefusedByName) {
    EXPECT_THROW_WITH(config_of(v3(R"(,"attention_bias":true)")), BadInput,
                      "attention_bias is true, which is not known");
    EXPECT_THROW_WITH(config_of(v3(R"(,"rope_interleave":false)")), BadInput,
                      "rope_interleave is false");
    EXPECT_THROW_WITH(config_of(v3(R"(,"topk_method":"random")")), BadInput,
                      "unknown topk_method \"random\"; known: greedy, group_limited_greedy, "
                      "noaux_tc");
    EXPECT_THROW_WITH(config_of(v3(R"(,"scoring_func":"relu")")), BadInput,
                      "unknown scoring_func \"relu\"; known: softmax, sigmoid");
    EXPECT_THROW_WITH(config_of(v2_lite(R"(,"norm_topk_prob":true)")), BadInput, "norm_topk_prob");
    EXPECT_THROW_WITH(config_of(v3(R"(,"n_group":7)")), BadInput,
                      "n_routed_experts 256 is no multiple of n_group 7");
    EXPECT_THROW_WITH(config_of(v3(R"(,"topk_group":9)")), BadInput,
                      "topk_group 9 is more than n_group 8");
    EXPECT_THROW_WITH(config_of(v3(R"(,"num_experts_per_tok":129)")), BadInput,
                      "num_experts_per_tok 129 is more than the 128 experts of topk_group 4");
    EXPECT_THROW_WITH(config_of(v3(R"(,"kv_lora_rank":0)")), BadInput, "kv_lora_rank is 0");
    EXPECT_THROW_WITH(config_of(v3(R"(,"qk_rope_head_dim":63)")), BadInput,
                      "qk_rope_head_dim 63 is odd");
    EXPECT_THROW_WITH(config_of(v3(R"(,"v_head_dim":"wide")")), BadInput, "\"v_head_dim\"");
}

TEST(DeepSeek, RowsAreSortedByExpertAndThenByToken) {
    const std::vector<std::int32_t> chosen{1, 3, 0, 3, 1, 3};  // of three tokens
    const ExpertRows rows = sort_by_expert(chosen, 4, 2);
    EXPECT_THAT(rows.tokens, ElementsAre(1, 0, 2, 0, 1, 2));
    EXPECT_THAT(rows.places, ElementsAre(1, 3, 0, 4, 2, 5));
    EXPECT_THAT(rows.experts, ElementsAre(Range{0, 1}, Range{1, 3}, Range{3, 3}, Range{3, 6}));
}

class DeepSeekFolder : public testing::Test {
  protected:
    /// A model whose frozen parameters are no zeros and ones, with a layer that predicts further.
    static ModelConfig config() {
        ModelConfig config = test::small_config(Family::deepseek_v3);
        config.extra_layers = 1;
        return config;
    }
    io::test::Scratch scratch_;
};

TEST_F(DeepSeekFolder, ExportAndImportKeepEveryTensorEvenThoseThatAreNotTrained) {
    test::SmallModel model(config());
    ParameterId some = 0;
    for (ParameterId id = 0; id < model.weights.table().count(); ++id) {
        if (model.weights.table()[id].trained) continue;
        auto values = model.values(id);
        for (float& value : values) value += 0.25F * static_cast<float>(++some % 7);
        model.set(id, values);
    }
    EXPECT_GT(some, 0);
    const auto fs = io::posix_file_system();
    export_folder(model.weights, *fs, scratch_.path(), model.compute);
    const ModelConfig again = read_config(scratch_.path());
    EXPECT_EQ(again, model.config);
    test::SmallModel loaded(again, test::plain_device(), 2);
    load_folder(loaded.weights, scratch_.path(), loaded.compute);
    EXPECT_EQ(loaded.weights.digests(loaded.compute), model.weights.digests(model.compute));
}

TEST_F(DeepSeekFolder, WeightsOfEightBitsAreReadWithTheirScales) {
    test::SmallModel model(config());
    const auto fs = io::posix_file_system();
    const ParameterTable& table = model.weights.table();
    std::vector<io::SafetensorsWriter::Tensor> layout;
    const auto quantised = [](const Parameter& parameter) {
        return parameter.name.find("proj") != std::string::npos;
    };
    constexpr std::int64_t kBlock = 8;
    for (const Parameter& parameter : table.rows()) {
        layout.push_back(
            {parameter.name, parameter.shape, quantised(parameter) ? DType::f8_e4m3 : DType::f32});
        if (!quantised(parameter)) continue;
        layout.push_back({io::scales_of(parameter.name),
                          Shape::matrix(ceil_div(parameter.shape.rows, kBlock),
                                        ceil_div(parameter.shape.cols, kBlock)),
                          DType::f32});
    }
    io::SafetensorsWriter writer(*fs, scratch_.path(), layout, 1 << 20);
    for (ParameterId id = 0; id < table.count(); ++id) {
        const Shape shape = table[id].shape;
        if (!quantised(table[id])) {
            writer.write_rows(table[id].name, 0, model.values(id));
            continue;
        }
        std::vector<std::byte> bits;
        std::vector<float> scales;
        std::vector<float> expected;
        for (std::int64_t i = 0; i < ceil_div(shape.rows, kBlock) * ceil_div(shape.cols, kBlock);
             ++i)
            scales.push_back(0.01F * static_cast<float>(i % 5 + 1));
        for (std::int64_t i = 0; i < shape.size(); ++i) {
            const auto value = static_cast<std::uint8_t>(i * 37 % 120);
            bits.push_back(static_cast<std::byte>(value));
            const std::int64_t block =
                i / shape.cols / kBlock * ceil_div(shape.cols, kBlock) + i % shape.cols / kBlock;
            expected.push_back(float_from_e4m3(value) * scales[static_cast<std::size_t>(block)]);
        }
        writer.write_rows_raw(table[id].name, 0, bits);
        writer.write_rows(io::scales_of(table[id].name), 0, scales);
        model.set(id, expected);
    }
    writer.finish();
    std::string text = to_json(model.config);
    text.insert(text.rfind('}'),
                R"(,"quantization_config":{"quant_method":"fp8","fmt":"e4m3",
                   "weight_block_size":[8,8],"activation_scheme":"dynamic"})");
    std::ofstream(scratch_.path() / "config.json") << text;
    test::SmallModel loaded(read_config(scratch_.path()), test::plain_device(), 2);
    load_folder(loaded.weights, scratch_.path(), loaded.compute);
    EXPECT_EQ(loaded.weights.digests(loaded.compute), model.weights.digests(model.compute));
}

TEST_F(DeepSeekFolder, OtherWaysToQuantiseAreRefused) {
    std::ofstream(scratch_.path() / "config.json")
        << v3(R"(,"quantization_config":{"quant_method":"gptq"})");
    EXPECT_THROW_WITH((void)read_fp8_blocks(scratch_.path()), BadInput, "quant_method \"gptq\"");
}

}  // namespace
}  // namespace rankwise::model
