#include "src/base/function_ref.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace rankwise {
namespace {

int twice(FunctionRef<int(int)> function, int x) {
    return function(function(x));
}

TEST(FunctionRef, CallsWhatItRefersTo) {
    int calls = 0;
    EXPECT_EQ(twice(
                  [&](int x) {
                      ++calls;
                      return 3 * x;
                  },
                  2),
              18);
    EXPECT_EQ(calls, 2);
}

TEST(FunctionRef, CopiesReferToTheSame) {
    int sum = 0;
    const auto add = [&](int x) { sum += x; };
    const FunctionRef<void(int)> first = add;
    const FunctionRef<void(int)> copy = first;  // of the callable, not of `first`
    first(1);
    copy(2);
    EXPECT_EQ(sum, 3);
}

TEST(FunctionRef, PassesArgumentsOnAsTheyCome) {
    const auto take = [](std::unique_ptr<std::string> text, std::string& out) { out = *text; };
    std::string out;
    const FunctionRef<void(std::unique_ptr<std::string>, std::string&)> function = take;
    function(std::make_unique<std::string>("moved"), out);
    EXPECT_EQ(out, "moved");
}

}  // namespace
}  // namespace rankwise
