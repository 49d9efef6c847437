// rankwise grade: rewards by name over JSON lines of answers.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>

#include "src/app/commands.hpp"
#include "src/app/display.hpp"
#include "src/base/options.hpp"
#include "src/tasks/grade.hpp"

namespace rankwise::app {
namespace {

int list_rewards() {
    for (const tasks::RewardEntry& entry : tasks::reward_table()) {
        fmt::print("{:<24}{}\n", entry.name, entry.help);
        for (const auto& [name, value] : entry.defaults) {
            fmt::print("{:<24}  {} = {}\n", "", name, value);
        }
    }
    return 0;
}

template <class T>
std::vector<T> list_of(const Arguments& arguments, const std::string& name) {
    std::vector<T> values;
    const Option option{.name = name, .target = &values};
    const std::string wrong = parse_option(option, arguments.get(name));
    require(wrong.empty(), "--{}: {}", name, wrong);
    return values;
}

}  // namespace

int run_grade(const Arguments& arguments) {
    if (arguments.has("list")) return list_rewards();
    require(!arguments.positional.empty() && arguments.has("rewards"),
            "give a file and --rewards NAME,…; rankwise grade --list lists the rewards");
    const std::vector<std::string> names = list_of<std::string>(arguments, "rewards");
    const std::vector<double> weights = list_of<double>(arguments, "weights");
    tasks::RewardSet rewards = tasks::make_reward_set(names, weights);
    std::optional<text::Tokenizer> tokenizer;
    if (arguments.has("tokenizer")) {
        tokenizer = text::Tokenizer::from_file(arguments.get("tokenizer"));
    }

    const std::string& path = arguments.positional[0];
    std::ifstream file;
    if (path != "-") {
        file.open(path);
        require(file.is_open(),
                "cannot read {}; give a file of JSON lines, or - for standard input", path);
    }
    std::ofstream output;
    if (arguments.has("output")) {
        output.open(arguments.get("output"), std::ios::trunc);
        if (!output.is_open()) {
            throw EnvironmentError(fmt::format("cannot write {}; check the folder and permissions",
                                               arguments.get("output")));
        }
    }
    std::istream& in = path == "-" ? std::cin : file;
    std::ostream& out = arguments.has("output") ? output : std::cout;
    const tasks::GradeSummary summary =
        tasks::grade(in, path, rewards, out, tokenizer ? &*tokenizer : nullptr);
    out.flush();
    fmt::print(stderr, "{} rows, reward {} on average\n", summary.rows,
               number_text(summary.mean_reward));
    for (const tasks::GradeSummary::Reward& reward : summary.rewards) {
        fmt::print(stderr, "  {:<24}{} over {} rows", reward.name, number_text(reward.mean),
                   reward.ok);
        if (reward.none > 0) {
            fmt::print(stderr, "; {} rows lack what it needs", reward.none);
        }
        fmt::print(stderr, "\n");
    }
    return 0;
}

}  // namespace rankwise::app
