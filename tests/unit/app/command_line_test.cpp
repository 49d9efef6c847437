#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "src/app/command.hpp"
#include "src/app/commands.hpp"
#include "src/app/nearest.hpp"
#include "src/app/terminal_text.hpp"

namespace rankwise::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

int nothing(const Arguments&) {
    return 0;
}

std::vector<Command> some_commands() {
    return {{.name = "train",
             .summary = "runs the stages of a recipe",
             .positional = "RECIPE",
             .takes_settings = true,
             .alone = nothing},
            {.name = "compare", .summary = "compares", .positional = "A B", .alone = nothing},
            {.name = "grade",
             .summary = "grades",
             .positional = "[FILE]",
             .options = {{"output", "FILE", "where"}, {"list", "", "lists"}},
             .examples = {"rankwise grade x"},
             .alone = nothing}};
}

std::vector<std::string> wrong_words(const std::vector<std::string>& words) {
    try {
        (void)parse_command_line(words, some_commands());
    } catch (const Problems& problems) {
        return problems.list();
    }
    return {};
}

TEST(CommandLine, SettingsAndWordsAreToldApart) {
    const auto commands = some_commands();
    const auto parsed = parse_command_line(
        {"train", "--parallel.tensor", "4", "x.ini", "--run.seed=7", "--stage.zero.rate", "-1"},
        commands);
    ASSERT_EQ(parsed.command, &commands[0]);
    EXPECT_THAT(parsed.arguments.positional, ElementsAre("x.ini"));
    ASSERT_EQ(parsed.arguments.settings.size(), 3U);
    EXPECT_EQ(parsed.arguments.settings[0].key, "parallel.tensor");
    EXPECT_EQ(parsed.arguments.settings[0].value, "4");
    EXPECT_EQ(parsed.arguments.settings[1].value, "7");
    EXPECT_EQ(parsed.arguments.settings[2].value, "-1");
}

TEST(CommandLine, OwnOptionsTakeValuesInBothSpellings) {
    const auto commands = some_commands();
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"grade", "x", "--output", "y", "--list"},
          std::vector<std::string>{"grade", "--list", "--output=y", "x"}}) {
        const auto parsed = parse_command_line(words, commands);
        EXPECT_EQ(parsed.arguments.get("output"), "y");
        EXPECT_TRUE(parsed.arguments.has("list"));
        EXPECT_THAT(parsed.arguments.positional, ElementsAre("x"));
    }
}

TEST(CommandLine, UnknownCommandNamesTheNearest) {
    EXPECT_THAT(wrong_words({"trian"}),
                ElementsAre("there is no command trian; did you mean train? (commands: train, "
                            "compare, grade)"));
}

TEST(CommandLine, AllProblemsAreReportedAtOnce) {
    const auto problems =
        wrong_words({"grade", "x", "y", "--outptu=z", "--run.seed", "3", "--a.b"});
    ASSERT_EQ(problems.size(), 4U);
    EXPECT_THAT(problems[0], HasSubstr("--a.b needs a value"));
    EXPECT_THAT(problems[1], HasSubstr("rankwise grade has no option --run.seed"));
    EXPECT_THAT(problems[2], HasSubstr("no option --outptu; did you mean --output?"));
    EXPECT_THAT(problems[3], HasSubstr("takes [FILE]; 'y' is one word too many"));
}

TEST(CommandLine, TooFewWordsSayWhatIsNeeded) {
    EXPECT_THAT(wrong_words({"compare", "a"})[0], HasSubstr("rankwise compare needs A B; found a"));
    EXPECT_THAT(wrong_words({"train"})[0], HasSubstr("needs RECIPE; found nothing"));
}

TEST(CommandLine, OptionWithoutItsValueIsAProblem) {
    EXPECT_THAT(wrong_words({"grade", "--output"})[0], HasSubstr("output"));
}

TEST(CommandLine, HelpFitsIntoEightyColumnsForEveryCommand) {
    std::vector<std::string> texts{program_help(all_commands())};
    for (const Command& command : all_commands()) {
        texts.push_back(command_help(command));
        EXPECT_NE(command.alone == nullptr, command.on_ranks == nullptr) << command.name;
        EXPECT_THAT(texts.front(), HasSubstr(command.name));
    }
    for (const std::string& text : texts) {
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);) {
            EXPECT_LE(columns_of(line), 80U) << line;
        }
    }
}

TEST(CommandLine, HelpIsAskedForInEveryUsualWay) {
    const auto commands = some_commands();
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{}, {"--help"}, {"-h"}, {"help"}}) {
        EXPECT_EQ(parse_command_line(words, commands).text, program_help(commands));
    }
    for (const std::vector<std::string>& words : {std::vector<std::string>{"grade", "--help"},
                                                  {"grade", "x", "y", "z", "-h"},
                                                  {"help", "grade"}}) {
        EXPECT_EQ(parse_command_line(words, commands).text, command_help(commands[2]));
    }
}

TEST(Nearest, SwapsCountOnceAndFarWordsAreNotOffered) {
    EXPECT_EQ(edit_distance("gpro", "grpo"), 1);
    EXPECT_EQ(edit_distance("", "abc"), 3);
    EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
    EXPECT_EQ(nearest("learnig_rate", {"seed", "learning_rate"}), "learning_rate");
    EXPECT_EQ(nearest("zzzzzz", {"seed", "learning_rate"}), "");
    EXPECT_EQ(nearest("max", {"seed", "max_completion_length"}), "max_completion_length");
}

}  // namespace
}  // namespace rankwise::app
