// The choice of experts and their weights against cases computed in double: DeepSeek-V2's and
// DeepSeek-V3's routers.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/gating.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/op_test.hpp"
#include "tests/support/test_data.hpp"

namespace rankwise::test {
namespace {

using Json = nlohmann::json;

class GatingGoldens : public OnEveryDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, GatingGoldens, testing::ValuesIn(device_cases()), device_name);

TEST_P(GatingGoldens, ExpertsAndWeightsAreThoseOfThePassInDouble) {
    const auto folder = data_folder();
    if (!folder) GTEST_SKIP() << "no test data folder";
    std::ifstream file(*folder / "models" / "gating_cases.json");
    for (const Json& golden : Json::parse(file)) {
        SCOPED_TRACE(golden.at("name"));
        const Json& config = golden.at("config");
        const bool sigmoid = config.at("scoring_func") == "sigmoid";
        const kernels::Routing routing{
            .scoring = sigmoid ? kernels::Scoring::sigmoid : kernels::Scoring::softmax,
            .experts = config.at("n_routed_experts"),
            .chosen = config.at("num_experts_per_tok"),
            .groups = config.at("n_group"),
            .kept_groups = config.at("topk_group"),
            .group_score =
                sigmoid ? kernels::GroupScore::two_largest : kernels::GroupScore::largest,
            .normalise = config.at("norm_topk_prob"),
            .scale = config.at("routed_scaling_factor")};
        std::vector<float> bias;
        if (!golden.at("e_score_correction_bias").is_null())
            golden.at("e_score_correction_bias").get_to(bias);
        std::vector<float> logits;
        for (const Json& row : golden.at("logits")) {
            const auto values = row.get<std::vector<float>>();
            logits.insert(logits.end(), values.begin(), values.end());
        }
        const auto rows = static_cast<std::int64_t>(golden.at("logits").size());
        const auto in = device.put(logits);
        const auto of_choice = device.put(bias);
        const auto weights = device.make<float>(rows * routing.chosen);
        std::vector<std::int32_t> experts(static_cast<std::size_t>(rows * routing.chosen));
        const auto in_place = matrix(in.span(), rows, routing.experts, routing.experts);
        device->gating({.logits = in_place,
                        .bias = of_choice.span(),
                        .routing = routing,
                        .scores = in_place,
                        .weights = matrix(weights.span(), rows, routing.chosen, routing.chosen),
                        .experts = experts},
                       device.stream());
        const auto got = device.get(weights);
        std::size_t at = 0;
        for (const Json& row : golden.at("mask_neg_inf")) {
            for (std::size_t i = 0; i < row.at("experts").size(); ++i, ++at) {
                EXPECT_EQ(experts[at], row.at("experts")[i].get<std::int32_t>());
                const double expected = row.at("weights")[i];
                EXPECT_NEAR(got[at], expected, 1e-5 * expected);
            }
        }
    }
}

}  // namespace
}  // namespace rankwise::test
