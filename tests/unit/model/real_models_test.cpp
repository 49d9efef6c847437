// config.json: the sizes of real models and their parameters, every rotary form, and what is
// refused.
#include "src/model/config.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "src/model/parameters.hpp"
#include "src/model/rope_table.hpp"
#include "tests/support/throws.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::model {
namespace {

/// What the file of a folder with this text says.
ModelConfig read(const std::string& config, const std::string& generation = {}) {
    const io::test::Scratch folder;
    io::test::put(folder / "config.json", config);
    if (!generation.empty()) io::test::put(folder / "generation_config.json", generation);
    return read_config(folder.path());
}

/// A real model: its file (the keys that matter) and what is known of it.
struct Known {
    const char* name;
    const char* file;
    std::int64_t parameters;
    std::int64_t head_dim;
    std::vector<int> reduction;
    bool qkv_bias, qk_norm;
};

const std::vector<Known>& known_models() {
    static const std::vector<Known> all{
        {"Qwen2.5-0.5B",
         R"({"model_type":"qwen2","hidden_act":"silu","hidden_size":896,"intermediate_size":4864,
         "max_position_embeddings":32768,"max_window_layers":24,"num_attention_heads":14,
         "num_hidden_layers":24,"num_key_value_heads":2,"rms_norm_eps":1e-06,
         "rope_theta":1000000.0,"sliding_window":32768,"tie_word_embeddings":true,
         "use_sliding_window":false,"vocab_size":151936,"bos_token_id":151643,
         "eos_token_id":151643})",
         494'032'768,
         64,
         {2, 7},
         true,
         false},
        {"Qwen2.5-1.5B",
         R"({"model_type":"qwen2","hidden_size":1536,"intermediate_size":8960,
         "max_position_embeddings":131072,"num_attention_heads":12,"num_hidden_layers":28,
         "num_key_value_heads":2,"rms_norm_eps":1e-06,"rope_theta":1000000.0,
         "tie_word_embeddings":true,"vocab_size":151936})",
         1'543'714'304,
         128,
         {2, 2, 3},
         true,
         false},
        {"DeepSeek-R1-Distill-Qwen-1.5B",
         R"({"model_type":"qwen2","hidden_size":1536,"intermediate_size":8960,
         "max_position_embeddings":131072,"num_attention_heads":12,"num_hidden_layers":28,
         "num_key_value_heads":2,"rms_norm_eps":1e-06,"rope_theta":10000,
         "tie_word_embeddings":false,"vocab_size":151936})",
         1'777'088'000,
         128,
         {2, 2, 3},
         true,
         false},
        {"SmolLM2-135M",
         R"({"model_type":"llama","attention_bias":false,"hidden_size":576,
         "initializer_range":0.041666666666666664,"intermediate_size":1536,
         "max_position_embeddings":8192,"mlp_bias":false,"num_attention_heads":9,
         "num_hidden_layers":30,"num_key_value_heads":3,"pretraining_tp":1,"rms_norm_eps":1e-05,
         "rope_interleaved":false,"rope_scaling":null,"rope_theta":100000,
         "tie_word_embeddings":true,"vocab_size":49152})",
         134'515'008,
         64,
         {3, 3},
         false,
         false},
        {"Qwen3-0.6B",
         R"({"model_type":"qwen3","attention_bias":false,"head_dim":128,"hidden_size":1024,
         "intermediate_size":3072,"max_position_embeddings":40960,"num_attention_heads":16,
         "num_hidden_layers":28,"num_key_value_heads":8,"rms_norm_eps":1e-06,
         "rope_theta":1000000,"tie_word_embeddings":true,"vocab_size":151936})",
         596'049'920,
         128,
         {2, 2, 2},
         false,
         true},
        {"Qwen3-1.7B",
         R"({"model_type":"qwen3","attention_bias":false,"head_dim":128,"hidden_size":2048,
         "intermediate_size":6144,"max_position_embeddings":40960,"num_attention_heads":16,
         "num_hidden_layers":28,"num_key_value_heads":8,"rms_norm_eps":1e-06,
         "rope_theta":1000000,"tie_word_embeddings":true,"vocab_size":151936})",
         1'720'574'976,
         128,
         {2, 2, 2},
         false,
         true},
        {"Llama-3.2-1B",
         R"({"model_type":"llama","attention_bias":false,"head_dim":64,"hidden_size":2048,
         "intermediate_size":8192,"max_position_embeddings":131072,"mlp_bias":false,
         "num_attention_heads":32,"num_hidden_layers":16,"num_key_value_heads":8,
         "rms_norm_eps":1e-05,"rope_scaling":{"factor":32.0,"high_freq_factor":4.0,
         "low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},
         "rope_theta":500000.0,"tie_word_embeddings":true,"vocab_size":128256})",
         1'235'814'400,
         64,
         {2, 2, 2},
         false,
         false},
        {"Llama-3.1-8B",
         R"({"model_type":"llama","attention_bias":false,"hidden_size":4096,
         "intermediate_size":14336,"max_position_embeddings":131072,"mlp_bias":false,
         "num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,
         "rms_norm_eps":1e-05,"rope_scaling":{"factor":8.0,"high_freq_factor":4.0,
         "low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},
         "rope_theta":500000.0,"tie_word_embeddings":false,"vocab_size":128256,
         "eos_token_id":[128001,128008,128009]})",
         8'030'261'248,
         128,
         {2, 2, 2},
         false,
         false}};
    return all;
}

TEST(ModelConfig, RealModelsHaveTheirNumberOfParametersAndTheirTree) {
    for (const Known& known : known_models()) {
        SCOPED_TRACE(known.name);
        const ModelConfig config = read(known.file);
        EXPECT_EQ(decoder_parameters(config).table.elements(), known.parameters);
        EXPECT_EQ(config.head_dim, known.head_dim);
        EXPECT_EQ(config.tree().radices, known.reduction);
        EXPECT_EQ(config.qkv_bias, known.qkv_bias);
        EXPECT_EQ(config.qk_norm, known.qk_norm);
        EXPECT_FALSE(config.o_bias);
    }
}

TEST(ModelConfig, WhatIsWrittenIsReadBack) {
    for (const Known& known : known_models()) {
        const ModelConfig config = read(known.file);
        EXPECT_EQ(read(to_json(config)), config) << known.name;
    }
}

TEST(ModelConfig, StopIdsMayBeOneOrManyAndThoseOfGenerationWin) {
    const std::string file = known_models()[0].file;
    EXPECT_EQ(read(file).eos, std::vector<TokenId>{151643});
    EXPECT_EQ(read(known_models().back().file).eos, (std::vector<TokenId>{128001, 128008, 128009}));
    EXPECT_EQ(read(file, R"({"eos_token_id":[151645,151643]})").eos,
              (std::vector<TokenId>{151645, 151643}));
    EXPECT_EQ(read(file, "{}").eos, std::vector<TokenId>{151643});
}

/// A small file with one key more, or another value for one.
std::string with(const std::string& more) {
    return R"({"model_type":"llama","vocab_size":16,"hidden_size":32,"num_hidden_layers":1,
        "num_attention_heads":4,"intermediate_size":32,"max_position_embeddings":512,)" +
           more + "}";
}

TEST(ModelConfig, BiasesAreReadWhereAFamilyHasThem) {
    const ModelConfig llama = read(with(R"("attention_bias":true,"mlp_bias":true)"));
    EXPECT_TRUE(llama.qkv_bias && llama.o_bias && llama.mlp_bias);
    const ModelConfig plain = read(with(R"("rope_theta":100.0)"));
    EXPECT_FALSE(plain.qkv_bias || plain.o_bias || plain.mlp_bias);
    EXPECT_EQ(plain.kv_heads, 4);
    EXPECT_EQ(plain.head_dim, 8);
}

// ---- rotary forms, each by its definition

std::vector<double> plain_frequencies(double theta, std::int64_t dim) {
    std::vector<double> all;
    for (std::int64_t i = 0; i < dim / 2; ++i) {
        all.push_back(std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
    }
    return all;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_NEAR(found[i], expected[i], 1e-13 * expected[i]) << i;
    }
}

TEST(Rope, WithoutScalingFrequenciesArePowersOfTheta) {
    for (const char* key : {R"("rope_theta":500.0)", R"("rope_theta":500.0,"rope_scaling":null)",
                            R"("rope_theta":500.0,"rope_scaling":{"rope_type":"default"})",
                            R"("rope_parameters":{"rope_type":"default","rope_theta":500.0})"}) {
        const ModelConfig config = read(with(key));
        EXPECT_EQ(config.rope.scaling, RopeScaling::none);
        expect_near(rope_frequencies(config.rope, 8, 512).inverse, plain_frequencies(500.0, 8));
    }
}

TEST(Rope, LinearDividesEveryFrequency) {
    for (const char* spelling : {"type", "rope_type"}) {
        const ModelConfig config = read(
            with(std::string(R"("rope_scaling":{")") + spelling + R"(":"linear","factor":4.0})"));
        std::vector<double> expected = plain_frequencies(10000.0, 8);
        for (double& frequency : expected) frequency /= 4.0;
        expect_near(rope_frequencies(config.rope, 8, 512).inverse, expected);
    }
}

TEST(Rope, DynamicStretchesThetaBeyondTheOriginalLength) {
    const ModelConfig config = read(with(
        R"("rope_scaling":{"type":"dynamic","factor":2.0,"original_max_position_embeddings":128})"));
    expect_near(rope_frequencies(config.rope, 8, 100).inverse, plain_frequencies(10000.0, 8));
    const double theta = 10000.0 * std::pow(2.0 * 512.0 / 128.0 - 1.0, 8.0 / 6.0);
    expect_near(rope_frequencies(config.rope, 8, 512).inverse, plain_frequencies(theta, 8));
}

TEST(Rope, Llama3KeepsShortWavesDividesLongOnesAndBlendsBetween) {
    const ModelConfig config = read(with(
        R"("rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":2.0,
        "high_freq_factor":4.0,"original_max_position_embeddings":256})"));
    std::vector<double> expected = plain_frequencies(10000.0, 32);
    int kept = 0;
    int blended = 0;
    for (double& frequency : expected) {
        const double wave = 2.0 * std::acos(-1.0) / frequency;
        if (wave < 64.0) {
            ++kept;
        } else if (wave > 128.0) {
            frequency /= 8.0;
        } else {
            ++blended;
            const double s = (256.0 / wave - 2.0) / 2.0;
            frequency *= (1.0 - s) / 8.0 + s;
        }
    }
    EXPECT_GT(kept, 0);
    EXPECT_GT(blended, 0);
    EXPECT_LT(kept + blended, 16);
    expect_near(rope_frequencies(config.rope, 32, 512).inverse, expected);
}

TEST(Rope, YarnsFactorOfCosineAndSineIsGivenComputedOrOfTwoScales) {
    const auto factor = [](const std::string& more) {
        return rope_frequencies(read(with(R"("rope_scaling":{"type":"yarn","factor":4.0)" + more +
                                          R"(,"original_max_position_embeddings":64})"))
                                    .rope,
                                8, 512)
            .attention_factor;
    };
    EXPECT_NEAR(factor(""), 0.1 * std::log(4.0) + 1.0, 1e-14);
    EXPECT_EQ(factor(R"(,"mscale":1.0,"mscale_all_dim":1.0)"), 1.0);
    EXPECT_NEAR(factor(R"(,"mscale":0.5,"mscale_all_dim":1.0)"),
                (0.05 * std::log(4.0) + 1.0) / (0.1 * std::log(4.0) + 1.0), 1e-14);
    EXPECT_EQ(factor(R"(,"attention_factor":1.25)"), 1.25);
}

TEST(Rope, TheTableHoldsCosineAndSineOfEveryAngleRoundedOnce) {
    const RopeConfig rope{.theta = 10000.0};
    const RopeTable table = rope_table(rope, 8, 300);
    const auto frequencies = plain_frequencies(10000.0, 8);
    ASSERT_EQ(table.cosine.size(), 300U * 4);
    for (std::size_t p = 0; p < 300; ++p) {
        for (std::size_t i = 0; i < 4; ++i) {
            const double angle = static_cast<double>(p) * frequencies[i];
            EXPECT_NEAR(table.cosine[p * 4 + i], std::cos(angle), 0x1p-24);
            EXPECT_NEAR(table.sine[p * 4 + i], std::sin(angle), 0x1p-24);
        }
    }
}

// ---- what is refused

TEST(ModelConfig, BadFilesAreRefusedByFileKeyAndReason) {
    EXPECT_THROW_WITH((void)read_config("/nowhere"), BadInput,
                      "/nowhere/config.json: cannot be read");
    EXPECT_THROW_WITH(read("{"), BadInput, "config.json: is not valid JSON");
    EXPECT_THROW_WITH(read("[]"), BadInput, "expected a JSON object");
    EXPECT_THROW_WITH(read("{}"), BadInput, "\"model_type\" is missing");
    EXPECT_THROW_WITH(read(R"({"model_type":"mamba"})"), BadInput,
                      "unknown model_type \"mamba\"; known: llama, qwen2, qwen3");
    EXPECT_THROW_WITH(read(R"({"model_type":"llama"})"), BadInput, "\"vocab_size\" is missing");
    EXPECT_THROW_WITH(read(with(R"("num_key_value_heads":"two")")), BadInput,
                      "\"num_key_value_heads\" has the wrong type: \"two\"");
    EXPECT_THROW_WITH(read(with(R"("hidden_act":"gelu")")), BadInput, "hidden_act is \"gelu\"");
    EXPECT_THROW_WITH(read(with(R"("num_key_value_heads":3)")), BadInput,
                      "num_attention_heads 4 is no multiple of num_key_value_heads 3");
    EXPECT_THROW_WITH(read(with(R"("head_dim":7)")), BadInput, "head_dim 7 is odd");
    EXPECT_THROW_WITH(read(with(R"("rms_norm_eps":0.0)")), BadInput, "must be positive");
    EXPECT_THROW_WITH(read(with(R"("rope_scaling":{"type":"spiral","factor":2.0})")), BadInput,
                      "unknown rope type \"spiral\"");
    EXPECT_THROW_WITH(read(with(R"("rope_scaling":{"type":"linear"})")), BadInput,
                      "\"factor\" is missing");
}

TEST(ModelConfig, SizesThatAreNotPositiveAreRefused) {
    for (const char* key : {"num_hidden_layers", "intermediate_size", "max_position_embeddings",
                            "vocab_size", "hidden_size", "num_attention_heads"}) {
        std::string file = with(R"("rope_theta":100.0)");
        const std::string found = std::string("\"") + key + "\":";
        const auto at = file.find(found) + found.size();
        file.replace(at, file.find(',', at) - at, "0");
        EXPECT_THROW_WITH(read(file), BadInput, key);
    }
}

}  // namespace
}  // namespace rankwise::model
