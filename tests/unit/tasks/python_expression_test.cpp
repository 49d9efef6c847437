#include "src/tasks/python_expression.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/tasks/fixtures.hpp"

namespace rankwise::tasks {
namespace {

// The fixture holds what CPython 3.11 gives for abs(eval(expression) - target), null where it
// raises.
TEST(PythonExpression, GivesWhatPythonGives) {
    const auto rows = fixture("python_expressions.jsonl");
    ASSERT_GT(rows.size(), 700U);
    for (const auto& row : rows) {
        const auto distance = python_distance(row["expression"].get<std::string>(),
                                              row["target"].get<std::int64_t>());
        const auto& expected = row["distance"];
        ASSERT_EQ(distance.has_value(), !expected.is_null()) << row;
        if (!distance) continue;
        const double value = expected.is_string() ? HUGE_VAL : expected.get<double>();
        // Powers of floats may differ in the last place, where libraries do.
        if (row["expression"].get<std::string>().find("**") == std::string::npos) {
            EXPECT_EQ(*distance, value) << row;
        } else {
            EXPECT_DOUBLE_EQ(*distance, value) << row;
        }
    }
}

TEST(PythonExpression, RefusesInsteadOfOverflowing) {
    const std::string open(1000000, '(');
    const std::string close(1000000, ')');
    EXPECT_EQ(python_distance(open + "1" + close, 1), std::nullopt);
    EXPECT_EQ(python_distance(open, 1), std::nullopt);
    EXPECT_EQ(python_distance(std::string(1000000, '-') + "1", 1), std::nullopt);
    std::string powers = "2";
    for (int i = 0; i < 100000; ++i) powers += "**2";
    EXPECT_EQ(python_distance(powers, 1), std::nullopt);
    EXPECT_EQ(python_distance("9**9**9", 1), std::nullopt);
    EXPECT_EQ(python_distance("9**9**9**9", 1), std::nullopt);
    EXPECT_EQ(python_distance(std::string(5000, '9'), 1), std::nullopt);
    EXPECT_EQ(python_distance("(2**60000)*(2**60000)", 1), std::nullopt);
    std::string sum = "1";
    for (int i = 0; i < 100000; ++i) sum += "+1";
    EXPECT_EQ(python_distance(sum, 100001), 0.0);
}

}  // namespace
}  // namespace rankwise::tasks
