// Rewards against cases that the projects they come from scored.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "src/base/error.hpp"
#include "src/tasks/jsonl_dataset.hpp"
#include "src/tasks/reward.hpp"
#include "tests/support/test_data.hpp"

namespace rankwise::tasks {
namespace {

using Json = nlohmann::json;

std::vector<Json> lines_of(const std::filesystem::path& path) {
    std::ifstream in(path);
    std::vector<Json> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
    return lines;
}

TEST(RewardsGolden, TinyzeroGivesTheScoresOfItsAuthors) {
    const auto data = test::data_folder();
    if (!data) GTEST_SKIP() << "no data folder: set RANKWISE_TEST_DATA";
    const auto cases = lines_of(*data / "countdown" / "tinyzero_reward_cases.jsonl");
    ASSERT_FALSE(cases.empty());
    const RewardFunction tinyzero = make_reward({.name = "tinyzero", .parameters = {}});
    for (const Json& each : cases) {
        Problem problem;
        problem.nums = each["nums"].get<std::vector<std::int64_t>>();
        problem.target = each["target"].get<std::int64_t>();
        const auto text = each["text"].get<std::string>();
        EXPECT_EQ(tinyzero(problem, {.text = text}), each["score"].get<double>()) << each;
    }
}

TEST(RewardsGolden, EverySolutionOfTheCountdownFilesIsRight) {
    const auto data = test::data_folder();
    if (!data) GTEST_SKIP() << "no data folder: set RANKWISE_TEST_DATA";
    const RewardFunction tinyzero = make_reward({.name = "tinyzero", .parameters = {}});
    for (const auto& entry : std::filesystem::directory_iterator(*data / "countdown")) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with("countdown_") || entry.path().extension() != ".jsonl") continue;
        const auto set = JsonlDataset::from_file(
            entry.path(), {.task = "tinyzero", .prompt_template = "tinyzero"});
        for (std::int64_t i = 0; i < *set.size(); ++i) {
            const Problem problem = set.problem(i);
            if (problem.reference.empty()) continue;  // unsolvable
            const std::string answer = "I see.</think>\n<answer>" + problem.reference + "</answer>";
            EXPECT_EQ(tinyzero(problem, {.text = answer}), 1.0) << set.where(i);
        }
    }
}

// open-r1's names for what the table has; accuracy, cosine and length rewards need a checker of
// mathematics.
const std::map<std::string, std::string> kNames = {
    {"format_reward", "open_r1_format"},
    {"tag_count_reward", "tag_count"},
    {"reasoning_steps_reward", "reasoning_steps"},
    {"repetition_penalty_reward", "repetition_penalty"},
    {"code_format_reward", "code_format"},
    {"soft_overlong_punishment", "soft_overlong"}};
const std::map<std::string, std::string> kParameters = {{"max_completion_len", "max_length"},
                                                        {"soft_punish_cache", "cache"},
                                                        {"ngram_size", "ngram_size"},
                                                        {"max_penalty", "max_penalty"}};

TEST(RewardsGolden, OpenR1sTestsHold) {
    const auto data = test::data_folder();
    if (!data) GTEST_SKIP() << "no data folder: set RANKWISE_TEST_DATA";
    int checked = 0;
    for (const Json& each : lines_of(*data / "rewards" / "open_r1_reward_cases.jsonl")) {
        const auto found = kNames.find(each["function"].get<std::string>());
        // Chinese words need a dictionary.
        if (found == kNames.end() || each["config"].value("language", "") == "zh") continue;
        RewardSpec spec{.name = found->second, .parameters = {}};
        Problem problem;
        for (const auto& [key, value] : each["config"].items()) {
            if (value.is_number()) {
                spec.parameters[kParameters.at(key)] = value.get<double>();
            } else {
                problem.columns[key] = value.dump();
            }
        }
        const RewardFunction reward = make_reward(spec);
        const Json& input = each["input"];
        const bool by_length = input.contains("completion_lengths_tokens");
        const Json& items = by_length ? input["completion_lengths_tokens"] : input["completions"];
        for (std::size_t i = 0; i < items.size(); ++i) {
            const std::string text = by_length ? "" : items[i].get<std::string>();
            const std::int64_t length = by_length ? items[i].get<std::int64_t>() : 0;
            const auto value = reward(problem, {.text = text, .length = length});
            ASSERT_TRUE(value.has_value());
            EXPECT_NEAR(*value, each["expected"][i].get<double>(), each["tol"].get<double>())
                << each;
            ++checked;
        }
    }
    EXPECT_GT(checked, 0);
}

}  // namespace
}  // namespace rankwise::tasks
