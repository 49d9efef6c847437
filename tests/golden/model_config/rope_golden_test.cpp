// Rotary frequencies of real configurations against their tables.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "src/model/rope_table.hpp"
#include "tests/support/test_data.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::model {
namespace {

using Json = nlohmann::json;

/// A configuration file that says what the table's entry says.
ModelConfig config_of(const Json& entry) {
    const std::int64_t dim = entry.at("rotary_dim");
    const Json file = {{"model_type", "llama"},
                       {"vocab_size", 16},
                       {"hidden_size", 4 * dim},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", 4},
                       {"intermediate_size", 32},
                       {"max_position_embeddings", 131072},
                       {"rope_theta", entry.at("rope_theta")},
                       {"rope_scaling", entry.at("rope_scaling")}};
    const io::test::Scratch folder;
    io::test::put(folder / "config.json", file.dump());
    return read_config(folder.path());
}

TEST(RopeGoldens, FrequenciesAreThoseOfTheTables) {
    const auto folder = test::data_folder();
    if (!folder) GTEST_SKIP() << "no test data folder";
    std::ifstream file(*folder / "models" / "rope_tables.json");
    const Json tables = Json::parse(file);
    EXPECT_GT(tables.size(), 0U);
    for (const Json& entry : tables) {
        SCOPED_TRACE(entry.at("name").get<std::string>());
        const ModelConfig config = config_of(entry);
        const RopeFrequencies found = rope_frequencies(config.rope, config.head_dim, 1024);
        const auto expected = entry.at("inv_freq").get<std::vector<double>>();
        ASSERT_EQ(found.inverse.size(), expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i) {
            EXPECT_NEAR(found.inverse[i], expected[i], 1e-13 * expected[i]) << i;
        }
        EXPECT_NEAR(found.attention_factor, entry.at("cos_sin_attention_factor").get<double>(),
                    1e-13);
    }
}

}  // namespace
}  // namespace rankwise::model
