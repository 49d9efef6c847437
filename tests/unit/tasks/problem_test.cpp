#include "src/tasks/problem.hpp"

#include <gtest/gtest.h>

#include "src/base/error.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::tasks {
namespace {

TEST(Problem, IsTheSameAfterWritingAndReading) {
    Problem problem;
    problem.id = 18446744073709551615U;
    problem.task = "countdown";
    problem.prompt = "line\n\"quoted\" é";
    problem.nums = {3, 7, 12};
    problem.target = -48;
    problem.reference = "12*(7-3)";
    problem.columns = {{"level", "5"}, {"tags", "[\"a\",{\"b\":null}]"}};
    EXPECT_EQ(problem_from_json_line(to_json_line(problem), 0, "x"), problem);
    EXPECT_EQ(problem_from_json_line(to_json_line(Problem{}), 0, "x"), Problem{});
}

TEST(Problem, TakesTheReferenceFromTheColumnThatThereIs) {
    const auto reference = [](std::string_view line) {
        return problem_from_json_line(line, 4, "x").reference;
    };
    EXPECT_EQ(reference(R"({"prompt":"p","answer":"a","solution":"s"})"), "a");
    EXPECT_EQ(reference(R"({"prompt":"p","answer":7,"solution":"s","label":"l"})"), "s");
    EXPECT_EQ(reference(R"({"prompt":"p","ground_truth":"g"})"), "g");
    EXPECT_EQ(reference(R"({"prompt":"p","solution":null})"), "");
}

TEST(Problem, KeepsOtherColumnsAndTheDefaultId) {
    const Problem problem = problem_from_json_line(
        R"({"id":"algebra/7","prompt":"p","level":5,"solution":"s"})", 4, "x");
    EXPECT_EQ(problem.id, 4U);
    EXPECT_EQ(problem.columns,
              (std::map<std::string, std::string>{
                  {"id", "\"algebra/7\""}, {"level", "5"}, {"solution", "\"s\""}}));
}

TEST(Problem, RefusesLinesOfAnotherForm) {
    const auto read = [](std::string_view line) {
        static_cast<void>(problem_from_json_line(line, 0, "train.jsonl:12"));
    };
    EXPECT_THROW_WITH(read("{\"prompt\":"), BadInput, "train.jsonl:12: not JSON");
    EXPECT_THROW_WITH(read("[1]"), BadInput, "train.jsonl:12: expected a JSON object, found array");
    EXPECT_THROW_WITH(read(R"({"prompt":5})"), BadInput, "\"prompt\" should be text, found 5");
    EXPECT_THROW_WITH(read(R"({"nums":[1,"2"]})"), BadInput,
                      "\"nums\" should be a list of whole numbers");
    EXPECT_THROW_WITH(read(R"({"nums":3})"), BadInput,
                      "\"nums\" should be a list of whole numbers");
    EXPECT_THROW_WITH(read(R"({"target":1.5})"), BadInput,
                      "\"target\" should be a whole number, found 1.5");
    EXPECT_THROW_WITH(read(R"({"target":18446744073709551615})"), BadInput, "whole number");
    EXPECT_THROW_WITH(read("{\"prompt\":\"\xFF\"}"), BadInput, "not JSON");
}

}  // namespace
}  // namespace rankwise::tasks
