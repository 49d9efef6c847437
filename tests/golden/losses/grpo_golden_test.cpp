// Losses of the GRPO family against float64 goldens: every case of every file
// grpo_goldens/cases*.jsonl.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "src/base/error.hpp"
#include "src/update/advantages.hpp"
#include "src/update/policy_loss.hpp"
#include "tests/support/test_data.hpp"

namespace rankwise::update {
namespace {

using Json = nlohmann::json;
using Table = std::vector<std::vector<double>>;

constexpr double kTolerance = 1e-12;

PolicyLossSettings settings_of(const Json& s) {
    PolicyLossSettings out;
    out.type = loss_type(s.at("loss_type"));
    out.sequence_ratio = s.at("importance_sampling_level") == "sequence";
    out.epsilon = s.at("epsilon");
    out.epsilon_high = s.at("epsilon_high");
    if (s.contains("delta") && !s.at("delta").is_null()) out.delta = s.at("delta");
    out.beta = s.at("beta");
    out.kl_bias_correction = s.at("use_bias_correction_kl");
    out.sapo_temperature_pos = s.at("sapo_temperature_pos");
    out.sapo_temperature_neg = s.at("sapo_temperature_neg");
    return out;
}

Table table_of(const Json& json) {
    return json.is_null() ? Table{} : json.get<Table>();
}

std::span<const double> row(const Table& table, std::size_t i) {
    return table.empty() ? std::span<const double>() : std::span<const double>(table[i]);
}

struct Clip {
    double low = 0.0, high = 0.0, region = 0.0, low_min = 1.0, high_max = 0.0, cispo = 0.0;
};

void check_case(const Json& json) {
    SCOPED_TRACE(json.at("id").get<std::string>() + ": " + json.at("note").get<std::string>());
    const Json& s = json.at("settings");
    const Json& in = json.at("inputs");
    const Json& out = json.at("outputs");
    const PolicyLossSettings settings = settings_of(s);
    const auto rewards = in.at("rewards").get<std::vector<double>>();
    const auto mask = in.at("mask").get<std::vector<std::vector<std::uint8_t>>>();
    const Table logps = table_of(in.at("logps"));
    const Table old_logps = table_of(in.at("old_logps"));
    const Table ref_logps = table_of(in.at("ref_logps"));

    const Advantages advantages =
        group_advantages(rewards, s.at("num_generations"), reward_scaling(s.at("scale_rewards")));
    for (std::size_t i = 0; i < rewards.size(); ++i) {
        EXPECT_NEAR(advantages.values[i], out.at("advantages")[i].get<double>(), kTolerance);
    }
    LossCounts counts{.samples = static_cast<std::int64_t>(rewards.size()),
                      .items = s.at("num_items_in_batch"),
                      .steps_per_generation = s.at("steps_per_generation"),
                      .accumulation = s.at("gradient_accumulation_steps"),
                      .max_completion_length = s.at("max_completion_length")};
    std::vector<std::int64_t> tokens;
    for (const auto& m : mask) {
        tokens.push_back(std::count(m.begin(), m.end(), std::uint8_t{1}));
        counts.tokens += tokens.back();
    }
    double loss = 0.0;
    double kl = 0.0;
    double k3 = 0.0;
    double low = 0.0;
    double high = 0.0;
    double capped = 0.0;
    for (std::size_t i = 0; i < rewards.size(); ++i) {
        const SampleLoss got = sample_loss(settings,
                                           {.logprob = row(logps, i),
                                            .old_logprob = row(old_logps, i),
                                            .ref_logprob = row(ref_logps, i),
                                            .mask = mask[i],
                                            .advantage = advantages.values[i]},
                                           token_weight(settings.type, counts, tokens[i]));
        loss += got.loss;
        kl += got.kl_sum;
        k3 += got.k3_sum;
        low += static_cast<double>(got.clipped_low);
        high += static_cast<double>(got.clipped_high);
        capped += static_cast<double>(got.capped);
        for (std::size_t t = 0; t < mask[i].size(); ++t) {
            EXPECT_NEAR(got.token_loss[t], out.at("per_token_loss")[i][t].get<double>(),
                        kTolerance);
            EXPECT_NEAR(got.gradient[t], out.at("grad_logps")[i][t].get<double>(), kTolerance)
                << i << "," << t;
            if (mask[i][t] != 0) {
                EXPECT_NEAR(got.ratio[t], out.at("ratio")[i][t].get<double>(),
                            kTolerance * (1 + got.ratio[t]));
            }
        }
    }
    EXPECT_NEAR(loss, out.at("loss").get<double>(), kTolerance);
    const auto all = static_cast<double>(counts.tokens);
    if (!out.at("mean_k3").is_null()) {
        EXPECT_NEAR(k3 / all, out.at("mean_k3").get<double>(), kTolerance);
    }
    if (!out.at("mean_kl").is_null()) {
        EXPECT_NEAR(kl / all, out.at("mean_kl").get<double>(), kTolerance);
    }
    const Json& clip = out.at("clip");
    if (clip.is_object() && !settings.sequence_ratio) {
        if (clip.contains("low_mean") && !clip.at("low_mean").is_null()) {
            EXPECT_NEAR(low / all, clip.at("low_mean").get<double>(), kTolerance);
            EXPECT_NEAR(high / all, clip.at("high_mean").get<double>(), kTolerance);
            EXPECT_NEAR((low + high) / all, clip.at("region_mean").get<double>(), kTolerance);
        }
    }
    if (out.contains("cispo_mean") && !out.at("cispo_mean").is_null()) {
        EXPECT_NEAR(capped / all, out.at("cispo_mean").get<double>(), kTolerance);
    }
}

TEST(GrpoGoldens, LossesAndGradientsAreExactToTwelveDigits) {
    const auto folder = test::data_folder();
    if (!folder) GTEST_SKIP() << "no test data folder";
    std::size_t cases = 0;
    for (const auto& entry : std::filesystem::directory_iterator(*folder / "grpo_goldens")) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with("cases") || entry.path().extension() != ".jsonl") continue;
        std::ifstream file(entry.path());
        for (std::string line; std::getline(file, line); ++cases) check_case(Json::parse(line));
    }
    EXPECT_GT(cases, 0U);
}

TEST(PolicyLoss, UnknownNamesAreRefusedWithTheKnownOnes) {
    EXPECT_THROW((void)loss_type("ppo"), BadInput);
    EXPECT_THROW((void)reward_scaling("std"), BadInput);
}

TEST(PolicyLoss, AFullyMaskedSampleCostsNothing) {
    const std::vector<double> logprob{-1.0, -2.0};
    const std::vector<std::uint8_t> mask{0, 0};
    const SampleLoss loss =
        sample_loss({}, {.logprob = logprob, .mask = mask, .advantage = 3.0}, 1.0);
    EXPECT_EQ(loss.loss, 0.0);
    EXPECT_EQ(loss.gradient, (std::vector<double>{0.0, 0.0}));
}

}  // namespace
}  // namespace rankwise::update
