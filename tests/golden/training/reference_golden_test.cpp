// Models in Hugging Face folders against the float64 passes that lie beside them: logits, log-
// probabilities and greedy answers, for every folder that is there.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "src/model/decoder.hpp"
#include "src/rollout/generator.hpp"
#include "tests/support/reference_model.hpp"
#include "tests/support/small_model.hpp"
#include "tests/support/test_data.hpp"

namespace rankwise::test {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

/// Errors of float32 through a few layers, relative to logits of some tens.
constexpr double kBound = 2e-4;

Json json_of(const fs::path& path) {
    std::ifstream file(path);
    return Json::parse(file);
}

Json results_of(const fs::path& folder) {
    return json_of(folder / "reference.json").at("results");
}

/// Folders with a reference.
std::vector<fs::path> reference_folders() {
    std::vector<fs::path> found;
    const auto folder = data_folder();
    if (!folder || !fs::exists(*folder / "models")) return found;
    for (const auto& entry : fs::directory_iterator(*folder / "models")) {
        if (!fs::exists(entry.path() / "reference.json")) continue;
        found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
}

struct FolderModel {
    FolderModel(const fs::path& folder, const DeviceCase& device_case)
        : model(model::read_config(folder), device_case) {
        model::load_folder(model.weights, folder, model.compute);
    }
    SmallModel model;
};

/// Log-probabilities of every id as the last token's successor.
std::vector<double> last_row(SmallModel& model, const std::vector<TokenId>& tokens) {
    // One answer a candidate: its log-probability behind the tokens.
    model::Microbatch batch;
    std::vector<std::vector<TokenId>> answers;
    for (std::int64_t id = 0; id < model.config.vocab_size; ++id) {
        answers.push_back({static_cast<TokenId>(id)});
    }
    model::append(batch, {.prompt = tokens, .answers = {answers.begin(), answers.end()}});
    const auto scored =
        model::score(model.compute, model.weights, {.ids = model.config.vocab_size}, batch);
    return {scored.logprob.begin(), scored.logprob.end()};
}

std::vector<double> log_softmax(std::vector<double> row) {
    const double largest = *std::max_element(row.begin(), row.end());
    double sum = 0.0;
    for (const double x : row) sum += std::exp(x - largest);
    for (double& x : row) x -= largest + std::log(sum);
    return row;
}

class ReferenceGoldens : public testing::TestWithParam<DeviceCase> {};

TEST_P(ReferenceGoldens, NextTokenDistributionsAreThoseOfThePassInDouble) {
    const auto folders = reference_folders();
    if (folders.empty()) GTEST_SKIP() << "no test data folder";
    for (const fs::path& folder : folders) {
        SCOPED_TRACE(folder.filename());
        FolderModel loaded(folder, GetParam());
        for (const Json& result : results_of(folder)) {
            const auto tokens = result.at("input_ids").get<std::vector<TokenId>>();
            std::vector<std::vector<double>> rows;
            if (result.contains("logits")) {
                result.at("logits").get_to(rows);
            } else {
                rows = {result.at("last_logits").get<std::vector<double>>()};
            }
            // The last row is always there; the first stands for the first token where all are.
            const auto compare = [&](const std::vector<double>& logits, std::size_t size) {
                const auto expected = log_softmax(logits);
                const auto got =
                    last_row(loaded.model,
                             {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(size)});
                for (std::size_t i = 0; i < expected.size(); ++i) {
                    ASSERT_NEAR(got[i], expected[i], kBound) << "id " << i;
                }
            };
            compare(rows.back(), tokens.size());
            if (rows.size() == tokens.size()) {
                for (std::size_t t = 0; t + 1 < rows.size(); t += 5) compare(rows[t], t + 1);
            }
        }
    }
}

TEST_P(ReferenceGoldens, LogprobsOfGivenTextAreThoseOfThePassInDouble) {
    const auto folders = reference_folders();
    if (folders.empty()) GTEST_SKIP() << "no test data folder";
    for (const fs::path& folder : folders) {
        SCOPED_TRACE(folder.filename());
        FolderModel loaded(folder, GetParam());
        for (const Json& result : results_of(folder)) {
            const char* key = result.contains("next_token_logprobs") ? "next_token_logprobs"
                                                                     : "teacher_forced_logprobs";
            const auto tokens = result.at("input_ids").get<std::vector<TokenId>>();
            if (!result.contains(key) || tokens.size() < 2) continue;
            model::Microbatch batch;
            model::append_sequence(batch, tokens, 1);
            const auto scored = model::score(loaded.model.compute, loaded.model.weights,
                                             {.ids = loaded.model.config.vocab_size}, batch);
            const auto expected = result.at(key).get<std::vector<double>>();
            ASSERT_EQ(scored.logprob.size(), expected.size());
            for (std::size_t t = 0; t < expected.size(); ++t) {
                EXPECT_NEAR(scored.logprob[t], expected[t], kBound) << t;
            }
        }
    }
}

TEST_P(ReferenceGoldens, GreedyAnswersAreTheSameTokens) {
    std::int64_t compared = 0;
    const auto folders = reference_folders();
    if (folders.empty()) GTEST_SKIP() << "no test data folder";
    for (const fs::path& folder : folders) {
        SCOPED_TRACE(folder.filename());
        std::vector<rollout::Request> requests;
        std::vector<std::vector<TokenId>> expected;
        for (const Json& result : results_of(folder)) {
            if (!result.contains("greedy_new_ids")) continue;
            // A margin below the rounding of float32 would decide nothing.
            if (result.at("greedy_min_margin").get<double>() < kBound) continue;
            requests.push_back({.prompt_id = requests.size(),
                                .group = std::ssize(requests),
                                .prompt = result.at("input_ids").get<std::vector<TokenId>>()});
            expected.push_back(result.at("greedy_new_ids").get<std::vector<TokenId>>());
        }
        if (requests.empty()) continue;
        FolderModel loaded(folder, GetParam());
        rollout::Generator generator(loaded.model.compute, loaded.model.weights, {.slots = 3},
                                     nullptr, loaded.model.config.vocab_size);
        rollout::LocalWork work(requests);
        const auto answers = generator.run(
            requests,
            {.temperature = 0.0, .max_new_tokens = std::ssize(expected[0]), .stop_ids = {1, 2}},
            work, 0, {});
        for (std::size_t i = 0; i < answers.size(); ++i) {
            const auto answer = answers[i].answer();
            const std::size_t size = std::min(answer.size(), expected[i].size());
            EXPECT_GE(size + 1, expected[i].size());  // the stop id may not be in the reference
            EXPECT_TRUE(std::equal(expected[i].begin(),
                                   expected[i].begin() + static_cast<std::ptrdiff_t>(size),
                                   answer.begin()))
                << i;
            ++compared;
        }
    }
    EXPECT_GT(compared, 0);
}

INSTANTIATE_TEST_SUITE_P(Devices, ReferenceGoldens, testing::ValuesIn(device_cases()), device_name);

TEST(ReferenceFolders, OurOwnPassInDoubleAgreesToo) {
    const auto folders = reference_folders();
    if (folders.empty()) GTEST_SKIP() << "no test data folder";
    for (const fs::path& folder : folders) {
        SCOPED_TRACE(folder.filename());
        FolderModel loaded(folder, plain_device());
        const reference::Model ours = loaded.model.reference_model();
        for (const Json& result : results_of(folder)) {
            const auto expected = result.contains("logits")
                                      ? result.at("logits").back().get<std::vector<double>>()
                                      : result.at("last_logits").get<std::vector<double>>();
            const auto got = ours.logits(result.at("input_ids").get<std::vector<TokenId>>()).back();
            for (std::size_t i = 0; i < expected.size(); ++i) {
                ASSERT_NEAR(got[i], expected[i], 1e-6) << "id " << i;
            }
        }
    }
}

/// Of the module that predicts one token further: log-probabilities of every id as the successor of
/// what follows the last token but one.
std::vector<double> last_further_row(SmallModel& model, std::vector<TokenId> tokens) {
    model.weights.use_mtp(model.compute, true);
    model::Microbatch batch;
    tokens.push_back(0);
    for (std::int64_t id = 0; id < model.config.vocab_size; ++id) {
        tokens.back() = static_cast<TokenId>(id);
        model::append_sequence(batch, tokens, std::ssize(tokens) - 1, true);
    }
    model::TrainingPass pass(model.compute, model.weights, {.ids = model.config.vocab_size}, batch,
                             false);
    const auto all = pass.logprobs().logprob;
    return {all.end() - model.config.vocab_size, all.end()};
}

TEST_P(ReferenceGoldens, AModuleThatPredictsFurtherGivesTheDistributionsOfThePassInDouble) {
    std::int64_t compared = 0;
    const auto folders = reference_folders();
    if (folders.empty()) GTEST_SKIP() << "no test data folder";
    for (const fs::path& folder : folders) {
        SCOPED_TRACE(folder.filename());
        for (const Json& result : results_of(folder)) {
            if (!result.contains("mtp_logits_last_row")) continue;
            FolderModel loaded(folder, GetParam());
            const auto tokens = result.at("input_ids").get<std::vector<TokenId>>();
            const auto expected =
                result.at("mtp_logits_last_row").at("post_norm").get<std::vector<double>>();
            const auto ours = loaded.model.reference_model().further_logits(tokens).back();
            const auto got = last_further_row(loaded.model, tokens);
            const auto logprobs = log_softmax(expected);
            for (std::size_t i = 0; i < expected.size(); ++i) {
                ASSERT_NEAR(ours[i], expected[i], 1e-6) << "id " << i;
                ASSERT_NEAR(got[i], logprobs[i], kBound) << "id " << i;
            }
            ++compared;
        }
    }
    EXPECT_GT(compared, 0);
}

/// A model in shards of bfloat16 is the model in one file of float32, rounded.
TEST(ReferenceFolders, AShardedBfloat16FolderHoldsTheRoundedWeightsOfItsTwin) {
    const auto folder = data_folder();
    if (!folder || !fs::exists(*folder / "models" / "stories260K-sharded-bf16")) {
        GTEST_SKIP() << "no sharded model in the test data";
    }
    FolderModel whole(*folder / "models" / "stories260K", plain_device());
    FolderModel sharded(*folder / "models" / "stories260K-sharded-bf16", plain_device());
    const ParameterTable& table = whole.model.weights.table();
    for (ParameterId id = 0; id < table.count(); ++id) {
        const auto exact = whole.model.values(id);
        const auto rounded = sharded.model.values(sharded.model.weights.table().id(table[id].name));
        ASSERT_EQ(exact.size(), rounded.size());
        for (std::size_t i = 0; i < exact.size(); ++i) {
            auto bits = std::bit_cast<std::uint32_t>(exact[i]);
            bits = (bits + 0x7FFFU + ((bits >> 16U) & 1U)) & 0xFFFF0000U;
            ASSERT_EQ(std::bit_cast<std::uint32_t>(rounded[i]), bits) << table[id].name << i;
        }
    }
}

}  // namespace
}  // namespace rankwise::test
