// The distribution that the sampler draws from, against the processors of transformers' `generate`
// in float64: every .jsonl file of the test data's sampling_goldens. The repetition penalty is none
// of the sampler's filters: the test applies it to the logits.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/sample.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/test_data.hpp"

namespace rankwise::test {
namespace {

struct GoldenCase {
    std::string id;
    std::vector<double> logits;  ///< after the repetition penalty
    kernels::SampleRow row;
    std::vector<double> probabilities;
};

double number_or(const nlohmann::json& value, double otherwise) {
    return value.is_null() ? otherwise : value.get<double>();
}

std::vector<GoldenCase> golden_cases() {
    std::vector<GoldenCase> cases;
    const auto data = data_folder();
    if (!data || !std::filesystem::is_directory(*data / "sampling_goldens")) return cases;
    std::set<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(*data / "sampling_goldens")) {
        if (entry.path().extension() == ".jsonl") files.insert(entry.path());
    }
    for (const auto& path : files) {
        std::ifstream file(path);
        for (std::string line; std::getline(file, line);) {
            const auto json = nlohmann::json::parse(line);
            const auto& settings = json.at("settings");
            GoldenCase c{json.at("id").get<std::string>(),
                         json.at("logits").get<std::vector<double>>(),
                         {},
                         json.at("probs").get<std::vector<double>>()};
            c.row.temperature = number_or(settings.at("temperature"), 1.0);
            c.row.top_k =
                settings.at("top_k").is_null() ? 0 : settings.at("top_k").get<std::int64_t>();
            c.row.top_p = number_or(settings.at("top_p"), 1.0);
            c.row.min_p = number_or(settings.at("min_p"), 0.0);
            const double penalty = number_or(settings.at("repetition_penalty"), 1.0);
            const auto previous = json.at("previous_ids").get<std::set<std::size_t>>();
            for (std::size_t id : previous) {
                double& logit = c.logits.at(id);
                logit = logit < 0.0 ? logit * penalty : logit / penalty;
            }
            cases.push_back(std::move(c));
        }
    }
    return cases;
}

class SamplingGoldens : public OnEveryDevice {
  protected:
    template <class Float>
    std::vector<double> probabilities(const GoldenCase& c, DType dtype) {
        const auto columns = static_cast<std::int64_t>(c.logits.size());
        std::vector<Float> logits;
        for (double logit : c.logits) logits.push_back(static_cast<Float>(logit));
        const auto buffer = device.put(logits);
        const auto out = device.make<double>(columns);
        device->filtered_probabilities(
            {.logits = {reinterpret_cast<const std::byte*>(buffer.span().handle()), dtype, 1,
                        columns, columns},
             .ids = columns,
             .rows = {&c.row, 1},
             .probabilities = out.span()},
            device.stream());
        return device.get(out);
    }
    const std::vector<GoldenCase> cases = golden_cases();

    void SetUp() override {
        if (cases.empty()) GTEST_SKIP() << "no sampling_goldens in the folder of test data";
    }
};
INSTANTIATE_TEST_SUITE_P(Devices, SamplingGoldens, testing::ValuesIn(device_cases()), device_name);

TEST_P(SamplingGoldens, ProbabilitiesOfDoubleLogitsAreExactTo12Places) {
    for (const GoldenCase& c : cases) {
        const auto got = probabilities<double>(c, DType::f64);
        for (std::size_t i = 0; i < got.size(); ++i) {
            EXPECT_NEAR(got[i], c.probabilities[i], 1e-12) << c.id << " id " << i;
            EXPECT_EQ(got[i] == 0.0, c.probabilities[i] == 0.0) << c.id << " id " << i;
        }
    }
}

TEST_P(SamplingGoldens, FloatLogitsKeepTheSameIds) {
    for (const GoldenCase& c : cases) {
        const auto got = probabilities<float>(c, DType::f32);
        double largest = 0.0;
        for (double logit : c.logits) largest = std::max(largest, std::abs(logit));
        // Rounding a logit to float moves it by at most half a unit of the last place, and a
        // probability by twice that.
        const double bound = 2.0 * largest * 0x1p-24 / c.row.temperature;
        for (std::size_t i = 0; i < got.size(); ++i) {
            EXPECT_NEAR(got[i], c.probabilities[i], bound) << c.id << " id " << i;
            EXPECT_EQ(got[i] == 0.0, c.probabilities[i] == 0.0) << c.id << " id " << i;
        }
    }
}

TEST_P(SamplingGoldens, OnlyKeptIdsAreDrawn) {
    for (const GoldenCase& c : cases) {
        const auto columns = static_cast<std::int64_t>(c.logits.size());
        std::vector<float> logits;
        std::vector<kernels::SampleRow> rows(200, c.row);
        for (std::size_t t = 0; t < rows.size(); ++t) {
            rows[t].position = static_cast<std::uint32_t>(t);
            for (double logit : c.logits) logits.push_back(static_cast<float>(logit));
        }
        const auto buffer = device.put(logits);
        std::vector<std::int32_t> tokens(rows.size());
        device->sample({.logits = {buffer.span(), 200, columns},
                        .ids = columns,
                        .rows = rows,
                        .tokens = tokens},
                       device.stream());
        for (std::int32_t token : tokens) {
            EXPECT_GT(c.probabilities.at(static_cast<std::size_t>(token)), 0.0) << c.id;
        }
    }
}

}  // namespace
}  // namespace rankwise::test
