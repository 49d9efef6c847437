#include "src/tasks/jsonl_dataset.hpp"

#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>
#include <set>

#include "src/base/error.hpp"
#include "src/tasks/countdown.hpp"
#include "src/tasks/prompt_template.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::tasks {
namespace {

namespace fs = std::filesystem;

class JsonlDatasetTest : public testing::Test {
  protected:
    void SetUp() override {
        const auto* info = testing::UnitTest::GetInstance()->current_test_info();
        folder_ = fs::temp_directory_path() /
                  (std::string("rankwise_jsonl_") + info->name() + std::to_string(getpid()));
        fs::create_directories(folder_);
    }
    void TearDown() override { fs::remove_all(folder_); }
    fs::path write(const std::string& content) {
        const fs::path path = folder_ / "data.jsonl";
        std::ofstream(path, std::ios::binary) << content;
        return path;
    }
    void refuses(const std::string& content, const std::string& message,
                 const JsonlOptions& options = {}) {
        const fs::path path = write(content);
        EXPECT_THROW_WITH(static_cast<void>(JsonlDataset::from_file(path, options)), BadInput,
                          message);
    }
    text::Tokenizer countdown_tokenizer(bool with_eos = true) {
        std::ofstream(folder_ / "tokenizer.json") << countdown::tokenizer_json();
        if (with_eos)
            std::ofstream(folder_ / "tokenizer_config.json") << countdown::tokenizer_config_json();
        return text::Tokenizer::from_file(folder_);
    }
    fs::path folder_;
};

TEST_F(JsonlDatasetTest, ReadsProblemsInOrderAndKnowsTheirLines) {
    const auto set = JsonlDataset::from_file(
        write("{\"prompt\":\"a\",\"level\":3}\n\n  "
              "\n{\"prompt\":\"b\",\"id\":9,\"task\":\"t\"}\r\n{\"prompt\":\"c\"}"),
        {.task = "maths"});
    ASSERT_EQ(set.size(), 3);
    EXPECT_EQ(set.problem(0).prompt, "a");
    EXPECT_EQ(set.problem(0).task, "maths");
    EXPECT_EQ(set.problem(0).id, 0U);
    EXPECT_EQ(set.problem(0).columns.at("level"), "3");
    EXPECT_EQ(set.problem(1).task, "t");
    EXPECT_EQ(set.problem(1).id, 9U);
    EXPECT_EQ(set.problem(2).id, 2U);
    EXPECT_TRUE(set.where(1).ends_with("data.jsonl:4"));
    EXPECT_THROW(static_cast<void>(set.problem(3)), InternalError);
    EXPECT_THROW(static_cast<void>(set.where(-1)), InternalError);
}

TEST_F(JsonlDatasetTest, NamesFileAndLineOfWhatIsWrong) {
    EXPECT_THROW_WITH(static_cast<void>(JsonlDataset::from_file(folder_ / "none.jsonl")), BadInput,
                      "none.jsonl: there is no such file");
    EXPECT_THROW_WITH(static_cast<void>(JsonlDataset::from_file(folder_)), BadInput,
                      "found a folder");
    refuses("", "data.jsonl: the file is empty");
    refuses("\n \n", "data.jsonl: the file is empty");
    refuses("{\"prompt\":\"a\"}\n{\"prompt\"", "data.jsonl:2: not JSON");
    refuses("{\"prompt\":7}", "data.jsonl:1: \"prompt\" should be text");
    refuses("{\"prompt\":\"a\"}\n{\"question\":\"a\"}",
            "data.jsonl:2: \"prompt\" is missing or empty");
    refuses("{\"prompt\":\"" + std::string(100, 'a') + "\"}",
            "data.jsonl:1: the line has 113 bytes; at most 50", {.most_line_bytes = 50});
    refuses("{\"prompt\":\"a\",\"id\":1}\n{\"prompt\":\"b\"}",
            "data.jsonl:2: the id 1 is that of line 1 too");
    refuses("{\"prompt\":\"a\"}", "held_out_percent: expected 0 to 100, found 101",
            {.held_out_percent = 101});
    refuses("{\"prompt\":\"a\"}",
            "no prompt template is called \"tinyzer\"; did you mean \"tinyzero\"?",
            {.prompt_template = "tinyzer"});
    refuses("{\"prompt\":\"a\"}", "none of 1 rows is held out",
            {.split = Split::held_out, .held_out_percent = 0});
    refuses("{\"prompt\":\"a\"}", "none of 1 rows is left for training",
            {.split = Split::train, .held_out_percent = 100});
    refuses("{\"nums\":[1,2]}", "data.jsonl:1: \"target\" is missing",
            {.prompt_template = "tinyzero"});
    refuses("{\"target\":2}", "data.jsonl:1: \"nums\" is missing", {.prompt_template = "tinyzero"});
    refuses("{\"text\":\"a\"}", "none of \"prompt\", \"question\" and \"problem\"",
            {.prompt_template = "r1_zero"});
}

TEST_F(JsonlDatasetTest, SplitsRowsByTheirPrompt) {
    std::string content;
    for (int i = 0; i < 1000; ++i) content += "{\"prompt\":\"" + std::to_string(i / 2) + "\"}\n";
    const fs::path path = write(content);
    const auto prompts = [&](Split split) {
        const auto set = JsonlDataset::from_file(path, {.split = split});
        std::multiset<std::string> all;
        for (std::int64_t i = 0; i < *set.size(); ++i) all.insert(set.problem(i).prompt);
        return all;
    };
    const auto train = prompts(Split::train);
    const auto held_out = prompts(Split::held_out);
    EXPECT_EQ(train.size() + held_out.size(), 1000U);
    EXPECT_GT(held_out.size(), 50U);
    EXPECT_LT(held_out.size(), 150U);
    for (const auto& prompt : held_out) EXPECT_FALSE(train.contains(prompt));
}

TEST_F(JsonlDatasetTest, WritesTheTinyzeroPromptAroundNumbersAndTarget) {
    const auto set = JsonlDataset::from_file(
        write("{\"nums\": [45, 65, 91], \"target\": 63, \"solution\": \"91 * (45 / 65)\"}"),
        {.task = "tinyzero", .prompt_template = "tinyzero"});
    const Problem problem = set.problem(0);
    EXPECT_NE(problem.prompt.find(
                  "\nUser: Using the numbers [45, 65, 91], create an equation that equals 63. You"),
              std::string::npos);
    EXPECT_TRUE(problem.prompt.ends_with("\nAssistant: Let me solve this step by step.\n<think>"));
    EXPECT_EQ(problem.reference, "91 * (45 / 65)");
}

TEST_F(JsonlDatasetTest, WritesTheR1ZeroPromptAroundAQuestion) {
    for (const char* row :
         {"{\"prompt\":\"1+1?\"}", "{\"question\":\"1+1?\"}", "{\"problem\":\"1+1?\"}"}) {
        const auto set = JsonlDataset::from_file(write(row), {.prompt_template = "r1_zero"});
        EXPECT_TRUE(set.problem(0).prompt.ends_with("</answer>. User: 1+1?. Assistant:")) << row;
    }
    EXPECT_EQ(prompt_template_names(), (std::vector<std::string>{"prompt", "tinyzero", "r1_zero"}));
}

TEST_F(JsonlDatasetTest, ReadsDemonstrationsAndEndsThemWithEos) {
    const text::Tokenizer tokenizer = countdown_tokenizer();
    const auto set = JsonlDemonstrations::from_file(
        write("{\"prompt\":\"1,2,3->6\",\"completion\":\"<think>1+2=3\"}\n{\"prompt\":\"1\","
              "\"response\":\"2<eos>\"}\n{\"prompt\":\"3\",\"response\":\"\"}"),
        tokenizer);
    ASSERT_EQ(set.size(), 3);
    const Demonstration first = set.demonstration(0);
    EXPECT_EQ(countdown::text_of(first.prompt), "<bos>1,2,3->6");
    EXPECT_EQ(countdown::text_of(first.response), "<think>1+2=3<eos>");
    EXPECT_EQ(countdown::text_of(set.demonstration(1).response), "2<eos>");
    EXPECT_EQ(countdown::text_of(set.demonstration(2).response), "<eos>");
    const auto read = [&](const std::string& content) {
        static_cast<void>(JsonlDemonstrations::from_file(write(content), tokenizer));
    };
    EXPECT_THROW_WITH(read("{\"prompt\":\"1\"}"), BadInput,
                      "data.jsonl:1: neither \"completion\" nor \"response\"");
    EXPECT_THROW_WITH(read("{\"prompt\":\"1\",\"response\":4}"), BadInput,
                      "data.jsonl:1: \"response\" should be text");
    fs::remove(folder_ / "tokenizer_config.json");
    const text::Tokenizer without = countdown_tokenizer(false);
    EXPECT_THROW_WITH(static_cast<void>(JsonlDemonstrations::from_file(write("{}"), without)),
                      BadInput, "names no EOS");
}

}  // namespace
}  // namespace rankwise::tasks
