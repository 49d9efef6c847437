// Log-probabilities, entropies, losses, gradients and three AdamW steps against float64 goldens,
// for every model of training_goldens. Bound: ten times the error of a plain
// float32 run, as the golden states it; in bf16 kBf16Errors times that error.
#include <gtest/gtest.h>

#include <cmath>

#include "parallel/self_communicator.hpp"
#include "tests/golden/training/goldens.hpp"

namespace rankwise::update {
namespace {

using Json = nlohmann::json;
using test::Golden;
using Model = test::GoldenModel;

constexpr double kErrors = 10.0;
/// bf16 has 16 bits of precision fewer than float32: a single rounding is 2^16 times as large.
constexpr double kBf16Errors = 65536.0;

class TrainingGoldens : public testing::TestWithParam<test::DeviceCase> {};

double logprob_bound(const Golden& golden, double errors) {
    return errors * golden.json.at("float32_stock_run").at("logprob_max_abs_diff").get<double>();
}

void expect_logprobs(Model& m, const Golden& golden, double errors) {
    for (const char* key : {"T=1.0", "T=0.7"}) {
        const float temperature = key[2] == '1' ? 1.0F : 0.7F;
        model::Microbatch batch;
        for (const auto& sequence : golden.sequences) model::append_sequence(batch, sequence, 1);
        const model::Logprobs got = model::score(
            m.compute, m.weights, {.ids = m.config.vocab_size, .temperature = temperature}, batch);
        // At a lower temperature logits are stretched, and so are their errors.
        const double bound = logprob_bound(golden, errors) / temperature;
        std::size_t at = 0;
        for (std::size_t s = 0; s < golden.sequences.size(); ++s) {
            for (std::size_t i = 0; i + 1 < golden.sequences[s].size(); ++i, ++at) {
                EXPECT_NEAR(got.logprob[at], golden.json.at("logprobs").at(key)[s][i].get<double>(),
                            bound);
                EXPECT_NEAR(got.entropy[at], golden.json.at("entropy").at(key)[s][i].get<double>(),
                            bound);
            }
        }
    }
}

TEST_P(TrainingGoldens, LogprobsAndEntropiesAgree) {
    const auto all = test::training_goldens();
    if (all.empty()) GTEST_SKIP() << "no test data folder";
    for (const Golden& golden : all) {
        SCOPED_TRACE(golden.name);
        Model m(GetParam(), golden);
        expect_logprobs(m, golden, kErrors);
    }
}

std::vector<float> floats_of(const test::DeviceUnderTest& device, kernels::ConstMatrix matrix) {
    return device.get(DeviceSpan<const float>(reinterpret_cast<const float*>(matrix.handle),
                                              matrix.rows * matrix.cols));
}

struct Digest {
    double l2 = 0.0;
    std::vector<double> at;
};

Digest digest_of(std::span<const float> values, const Json& indices) {
    Digest digest;
    for (const float value : values) digest.l2 += static_cast<double>(value) * value;
    digest.l2 = std::sqrt(digest.l2);
    for (const Json& index : indices) digest.at.push_back(values[index.get<std::size_t>()]);
    return digest;
}

void expect_three_steps(Model& m, const Golden& golden, double errors) {
    const auto self = parallel::make_self_communicator({}, "data");
    test::GoldenUpdate update(
        m, golden, *self,
        {.head = {.ids = m.config.vocab_size},
         .recompute = golden.name.size() % 3 == 0
                          ? model::kAllLayers
                          : static_cast<std::int64_t>(golden.name.size() % 3 - 1)});
    for (std::size_t step = 0; step < 3; ++step) {
        const double norm = update.step();
        const double expected = golden.json.at("step_loss")[step];
        const double expected_norm = golden.json.at("step_grad_norm_before_clip")[step];
        EXPECT_NEAR(update.loss(), expected, 1e-6 * expected + logprob_bound(golden, errors));
        EXPECT_NEAR(norm, expected_norm, 1e-6 * errors * expected_norm);
        if (step > 0) continue;
        for (const auto& [name, parameter] : golden.json.at("parameters").items()) {
            SCOPED_TRACE(name);
            const Json& grad = parameter.at("grad");
            const auto values =
                floats_of(m.device, update.trainer().gradients().whole(m.weights.table().id(name)));
            const Digest got = digest_of(values, parameter.at("idx"));
            const double l2 = grad.at("l2");
            const double relative = parameter.at("f32").at("grad_rel_l2").is_null()
                                        ? 0.0
                                        : parameter.at("f32").at("grad_rel_l2").get<double>();
            EXPECT_NEAR(got.l2, l2, errors * relative * l2);
            for (std::size_t i = 0; i < got.at.size(); ++i) {
                EXPECT_NEAR(got.at[i], grad.at("at")[i].get<double>(), errors * relative * l2);
            }
        }
    }
    const double rate = golden.json.at("optimizer").at("lr");
    for (const auto& [name, parameter] : golden.json.at("parameters").items()) {
        SCOPED_TRACE(name);
        const auto values =
            floats_of(m.device, std::as_const(m.weights).master(m.weights.table().id(name)));
        const Digest got = digest_of(values, parameter.at("idx"));
        // A step moves a weight by about the rate, whatever the size of its gradient: one whose
        // gradient is below its error may go the other way.
        const double bound = std::min(
            errors * parameter.at("f32").at("after_max_abs").get<double>(), 3 * 2.1 * rate);
        for (std::size_t i = 0; i < got.at.size(); ++i) {
            EXPECT_NEAR(got.at[i], parameter.at("after").at("at")[i].get<double>(), bound);
        }
    }
}

TEST_P(TrainingGoldens, GradientsAndThreeStepsOfAdamwAgree) {
    const auto all = test::training_goldens();
    if (all.empty()) GTEST_SKIP() << "no test data folder";
    for (const Golden& golden : all) {
        SCOPED_TRACE(golden.name);
        Model m(GetParam(), golden);
        expect_three_steps(m, golden, kErrors);
    }
}

TEST_P(TrainingGoldens, InBf16AllOfItAgreesWithinTheRoundingOfBf16) {
    const auto all = test::training_goldens();
    if (all.empty()) GTEST_SKIP() << "no test data folder";
    for (const Golden& golden : all) {
        SCOPED_TRACE(golden.name);
        if (test::config_of(golden).latent.used()) continue;
        Model m(GetParam(), golden, {}, DType::bf16);
        expect_logprobs(m, golden, kBf16Errors);
        expect_three_steps(m, golden, kBf16Errors);
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, TrainingGoldens, testing::ValuesIn(test::device_cases()),
                         test::device_name);

}  // namespace
}  // namespace rankwise::update
