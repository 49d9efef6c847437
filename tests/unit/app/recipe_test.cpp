#include "src/app/recipe.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace rankwise::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct RunKeys {
    std::vector<std::string> stages;
    std::int64_t seed = 1;
    OptionList options() {
        OptionList list;
        list.logical("stages", &stages, "stages");
        list.logical("seed", &seed, "seed").at_least(0);
        return list;
    }
};

struct Parallel {
    std::int64_t tensor = 1;
    std::int64_t zero = 0;
    OptionList options() {
        OptionList list;
        list.physical("tensor", &tensor, {"1", "2"}, "tensor ranks").at_least(1).at_most(64);
        list.physical("zero", &zero, {"0", "1"}, "ZeRO").at_least(0).at_most(3);
        return list;
    }
};

struct Grpo {
    double learning_rate = 1e-3;
    std::int64_t group_size = 8;
    std::string loss_type = "grpo";
    bool mask_truncated = false;
    std::vector<double> weights{1.0};
    std::vector<std::string> rewards;
    std::string note;
    OptionList options() {
        OptionList list;
        list.logical("learning_rate", &learning_rate, "rate").at_least(0).at_most(1);
        list.logical("group_size", &group_size, "G").at_least(2);
        list.logical("loss_type", &loss_type, "loss").one_of({"grpo", "dapo", "dr_grpo"});
        list.logical("mask_truncated", &mask_truncated, "mask");
        list.logical("weights", &weights, "weights").at_least(0);
        list.logical("rewards", &rewards, "rewards").one_of({"accuracy", "format"});
        list.operational("note", &note, "only a note", "note");
        return list;
    }
};

/// Binds a recipe as a caller does, and keeps what it read.
struct Bound {
    RunKeys run;
    Parallel parallel;
    std::map<std::string, Grpo> stages;

    void bind(Recipe& recipe) {
        recipe.bind("run", run.options());
        recipe.bind("parallel", parallel.options());
        const KindTable kinds{
            {"grpo", [this](const std::string& section) { return stages[section].options(); }},
            {"sft", [](const std::string&) { return OptionList(); }}};
        for (const std::string& stage : run.stages) recipe.bind_kind("stage." + stage, kinds);
    }
};

std::vector<std::string> problems_of(const std::string& text, std::vector<Setting> settings = {}) {
    Recipe recipe(text, "x.ini", std::move(settings));
    Bound bound;
    bound.bind(recipe);
    try {
        recipe.finish();
    } catch (const Problems& problems) {
        return problems.list();
    }
    return {};
}

constexpr const char* kGood =
    "# a comment\n"
    "[run]\n"
    "stages = zero   # in order\n"
    "[stage.zero]\n"
    "kind = grpo\n"
    "learning_rate = 2e-4\n"
    "weights = 1, 0.2\n"
    "rewards = accuracy, format\n"
    "mask_truncated = yes\n";

TEST(Recipe, CommandLineGoesOverFileGoesOverDefault) {
    Recipe recipe(kGood, "x.ini", {{"run.seed", "7"}, {"stage.zero.learning_rate", "0.5"}});
    Bound bound;
    bound.bind(recipe);
    recipe.finish();
    EXPECT_EQ(bound.run.seed, 7);
    EXPECT_EQ(bound.stages["stage.zero"].learning_rate, 0.5);
    EXPECT_EQ(bound.stages["stage.zero"].weights, (std::vector<double>{1.0, 0.2}));
    EXPECT_TRUE(bound.stages["stage.zero"].mask_truncated);
    EXPECT_EQ(bound.stages["stage.zero"].group_size, 8);
    for (const ResolvedOption& option : recipe.resolved()) {
        if (option.key() == "run.stages") {
            EXPECT_EQ(option.origin.text(), "x.ini:3");
        }
        if (option.key() == "run.seed") {
            EXPECT_EQ(option.origin.text(), "command line");
        }
        if (option.key() == "stage.zero.group_size") {
            EXPECT_EQ(option.origin.text(), "default");
        }
    }
}

TEST(Recipe, TheLaterOfTwoSettingsOfOneKeyOnTheCommandLineCounts) {
    Recipe recipe(kGood, "x.ini", {{"run.seed", "7"}, {"run.seed", "8"}});
    Bound bound;
    bound.bind(recipe);
    recipe.finish();
    EXPECT_EQ(bound.run.seed, 8);
}

TEST(Recipe, ResolvedTextReadsBackEqual) {
    Recipe recipe(kGood, "x.ini", {{"run.seed", "7"}});
    Bound bound;
    bound.bind(recipe);
    recipe.finish();
    Recipe again(recipe.resolved_text(), "recipe.ini");
    Bound bound_again;
    bound_again.bind(again);
    again.finish();
    ASSERT_EQ(again.resolved().size(), recipe.resolved().size());
    for (std::size_t i = 0; i < recipe.resolved().size(); ++i) {
        EXPECT_EQ(again.resolved()[i].key(), recipe.resolved()[i].key());
        EXPECT_EQ(again.resolved()[i].value, recipe.resolved()[i].value);
    }
    EXPECT_EQ(again.digest_options(), recipe.digest_options());
}

TEST(Recipe, UnknownKeyNamesTheNearestOneAndTheKeysOfTheSection) {
    const auto problems = problems_of(std::string(kGood) + "learnig_rate = 1e-4\n");
    ASSERT_EQ(problems.size(), 1U);
    EXPECT_THAT(problems[0], HasSubstr("x.ini:10: [stage.zero] has no key learnig_rate; did you "
                                       "mean learning_rate?"));
    EXPECT_THAT(problems[0], HasSubstr("group_size"));
}

TEST(Recipe, AllProblemsAreReportedAtOnceInTheOrderOfTheFile) {
    const auto problems = problems_of(
        "[run]\n"
        "stages = zero\n"
        "seed = -1\n"
        "[stage.zero]\n"
        "kind = grpo\n"
        "learning_rate = fast\n"
        "group_size = 2.5\n"
        "loss_type = dapoo\n"
        "mask_truncated = maybe\n"
        "weights = 1, x\n",
        {{"parallel.tensor", "0"}, {"parallel.pipelin", "2"}});
    ASSERT_EQ(problems.size(), 8U);
    EXPECT_EQ(problems[0],
              "x.ini:3: [run] seed: expected a whole number of at least 0, found '-1'");
    EXPECT_EQ(problems[1],
              "x.ini:6: [stage.zero] learning_rate: expected a number from 0 to 1, found 'fast'");
    EXPECT_EQ(problems[2],
              "x.ini:7: [stage.zero] group_size: expected a whole number of at least 2, found "
              "'2.5'");
    EXPECT_EQ(problems[3],
              "x.ini:8: [stage.zero] loss_type: expected one of grpo, dapo, dr_grpo, found "
              "'dapoo'; did you mean dapo?");
    EXPECT_EQ(problems[4],
              "x.ini:9: [stage.zero] mask_truncated: expected true or false, found 'maybe'");
    EXPECT_EQ(problems[5],
              "x.ini:10: [stage.zero] weights: expected numbers of at least 0 with commas between "
              "them, found 'x'");
    EXPECT_EQ(problems[6],
              "command line: [parallel] tensor: expected a whole number from 1 to 64, found '0'");
    EXPECT_THAT(problems[7], HasSubstr("command line: [parallel] has no key pipelin"));
}

TEST(Recipe, AValueWithAProblemKeepsItsDefault) {
    Recipe recipe("[run]\nseed = x\n", "x.ini");
    RunKeys run;
    recipe.bind("run", run.options());
    EXPECT_EQ(run.seed, 1);
    EXPECT_THROW(recipe.finish(), Problems);
}

TEST(Recipe, KeyWrittenTwiceNamesBothLines) {
    const auto problems = problems_of("[run]\nseed = 1\nseed = 2\n");
    EXPECT_THAT(problems, ElementsAre("x.ini:3: [run] seed again; it has a value in line 2: write "
                                      "it once"));
}

TEST(Recipe, SectionWrittenTwiceNamesBothLines) {
    const auto problems = problems_of("[run]\nseed = 1\n[parallel]\n[run]\n");
    EXPECT_THAT(problems, ElementsAre("x.ini:4: section [run] again; it began in line 1: write it "
                                      "once"));
}

TEST(Recipe, MissingStageSectionSaysWhatItNeeds) {
    const auto problems = problems_of("[run]\nstages = zero\n");
    EXPECT_THAT(problems, ElementsAre("x.ini: section [stage.zero] is missing; it needs a line "
                                      "'kind = …', one of grpo, sft"));
}

TEST(Recipe, StageWithoutKindIsAProblem) {
    const auto problems = problems_of("[run]\nstages = zero\n[stage.zero]\ngroup_size = 3\n");
    EXPECT_THAT(problems,
                ElementsAre("x.ini:3: [stage.zero]: a line 'kind = …' is missing; one of grpo, "
                            "sft"));
}

TEST(Recipe, UnknownKindNamesTheNearest) {
    const auto problems = problems_of("[run]\nstages = zero\n[stage.zero]\nkind = gpro\nlr = 1\n");
    EXPECT_THAT(problems,
                ElementsAre("x.ini:4: [stage.zero] kind: expected one of grpo, sft, found "
                            "'gpro'; did you mean grpo?"));
}

TEST(Recipe, SectionThatNothingUsesIsAProblem) {
    auto problems = problems_of("[run]\n[paralel]\ntensor = 2\n[stage.zero]\nkind = grpo\n");
    ASSERT_EQ(problems.size(), 2U);
    EXPECT_THAT(problems[0], HasSubstr("x.ini:2: nothing uses section [paralel]; did you mean "
                                       "parallel?"));
    EXPECT_THAT(problems[1], HasSubstr("x.ini:4: nothing uses section [stage.zero]; add zero to "
                                       "[run] stages, or take it out"));
    problems = problems_of("[run]\n", {{"stage.one.kind", "grpo"}});
    ASSERT_EQ(problems.size(), 1U);
    EXPECT_THAT(problems[0], HasSubstr("command line: nothing uses section [stage.one]"));
}

TEST(Recipe, LinesThatAreNoKeysAreReportedWithTheirPlace) {
    const auto problems = problems_of("seed = 1\n[run\nseed = 2\n[run]\nseed\n = 3\n");
    ASSERT_EQ(problems.size(), 4U);
    EXPECT_THAT(problems[0], HasSubstr("x.ini:1: key seed stands before the first section"));
    EXPECT_THAT(problems[1], HasSubstr("x.ini:2: expected a section like [run], found '[run'"));
    EXPECT_THAT(problems[2], HasSubstr("x.ini:5: expected 'key = value', found 'seed'"));
    EXPECT_THAT(problems[3], HasSubstr("x.ini:6: expected 'key = value', found '= 3'"));
}

TEST(Recipe, SettingThatNamesNoSectionIsAProblem) {
    const auto problems = problems_of("[run]\n", {{"seed", "3"}, {"run.seed", "3 # no"}});
    EXPECT_THAT(problems, ElementsAre("command line: expected --section.key value, found --seed",
                                      "command line: --run.seed: a value cannot hold '#' or a line "
                                      "end"));
}

TEST(Recipe, CallersAddTheirOwnProblemsWithThePlaceOfTheKey) {
    Recipe recipe("[run]\nseed = 3\n[parallel]\n", "x.ini", {{"parallel.zero", "1"}});
    Bound bound;
    bound.bind(recipe);
    recipe.add_problem("run", "seed", "is taken");
    recipe.add_problem("parallel", "tensor", "does not divide the heads");
    recipe.add_problem("parallel", "zero", "needs data ranks");
    recipe.add_problem("", "", "stages do not fit");
    try {
        recipe.finish();
        FAIL();
    } catch (const Problems& problems) {
        EXPECT_THAT(problems.list(),
                    ElementsAre("x.ini:2: [run] seed: is taken",
                                "x.ini:3: [parallel] tensor: does not divide the heads",
                                "command line: [parallel] zero: needs data ranks",
                                "x.ini: stages do not fit"));
        EXPECT_EQ(problems.code(), ExitCode::bad_input);
    }
}

TEST(Recipe, NumbersAreReadInFullAndNothingElse) {
    std::int64_t whole = 5;
    double real = 5.0;
    Option option{.name = "n", .target = &whole};
    EXPECT_EQ(parse_option(option, "9223372036854775807"), "");
    EXPECT_EQ(whole, std::numeric_limits<std::int64_t>::max());
    for (const char* text : {"9223372036854775808", "", "1 2", "0x10", "1e3", "--1"}) {
        EXPECT_NE(parse_option(option, text), "") << text;
    }
    option.target = &real;
    EXPECT_EQ(parse_option(option, "1e-300"), "");
    EXPECT_EQ(real, 1e-300);
    EXPECT_EQ(parse_option(option, "inf"), "");
    for (const char* text : {"nan", "1.5x", "", "1,5"}) {
        EXPECT_NE(parse_option(option, text), "") << text;
    }
}

TEST(Recipe, ListsMayBeEmptyButHaveNoEmptyItems) {
    std::vector<std::string> words{"old"};
    Option option{.name = "n", .target = &words};
    EXPECT_EQ(parse_option(option, ""), "");
    EXPECT_TRUE(words.empty());
    EXPECT_EQ(parse_option(option, " a ,b"), "");
    EXPECT_EQ(words, (std::vector<std::string>{"a", "b"}));
    EXPECT_NE(parse_option(option, "a,,b"), "");
    EXPECT_NE(parse_option(option, "a,"), "");
    EXPECT_EQ(words, (std::vector<std::string>{"a", "b"}));
}

UInt128 digest_of(const std::string& text, std::vector<Setting> settings = {}) {
    Recipe recipe(text, "x.ini", std::move(settings));
    Bound bound;
    bound.bind(recipe);
    recipe.finish();
    return recipe.digest_options();
}

TEST(Recipe, DigestDependsOnLogicalOptionsAlone) {
    const UInt128 digest = digest_of(kGood);
    EXPECT_EQ(digest_of(kGood, {{"parallel.tensor", "2"}}), digest);
    EXPECT_EQ(digest_of(kGood, {{"stage.zero.note", "hello"}}), digest);
    // The same value in another spelling, or given where it is the default.
    EXPECT_EQ(digest_of(kGood, {{"stage.zero.learning_rate", "0.0002"}}), digest);
    EXPECT_EQ(digest_of(kGood, {{"run.seed", "1"}}), digest);
    EXPECT_NE(digest_of(kGood, {{"run.seed", "2"}}), digest);
    EXPECT_NE(digest_of(kGood, {{"stage.zero.loss_type", "dapo"}}), digest);
}

TEST(Recipe, LogicalDifferencesNameKeyAndBothValues) {
    const auto text_of = [](std::vector<Setting> settings) {
        Recipe recipe(kGood, "x.ini", std::move(settings));
        Bound bound;
        bound.bind(recipe);
        recipe.finish();
        return recipe.resolved_text();
    };
    const std::string saved = logical_text_of(text_of({}));
    EXPECT_TRUE(
        logical_differences(saved, logical_text_of(text_of({{"parallel.zero", "1"}}))).empty());
    const auto differences =
        logical_differences(saved, logical_text_of(text_of({{"run.seed", "2"}})) + "a.b = 1\n");
    ASSERT_EQ(differences.size(), 2U);
    EXPECT_EQ(differences[0].key, "a.b");
    EXPECT_EQ(differences[0].saved, "absent");
    EXPECT_EQ(differences[1].key, "run.seed");
    EXPECT_EQ(differences[1].saved, "'1'");
    EXPECT_EQ(differences[1].current, "'2'");
}

TEST(Recipe, NamesListsSectionsInTheOrderOfTheFile) {
    const Recipe recipe("[model.b]\n[stage.x]\n[model.a]\n[model.a.parallel]\n", "x.ini",
                        {{"model.c.path", "p"}});
    EXPECT_THAT(recipe.names("model"), ElementsAre("b", "a", "c"));
    EXPECT_TRUE(recipe.has("stage.x"));
    EXPECT_FALSE(recipe.has("stage.y"));
}

TEST(Recipe, TwoListsThatDeclareOneKeyAreADefect) {
    Recipe recipe("", "x.ini");
    RunKeys one;
    RunKeys two;
    recipe.bind("run", one.options());
    EXPECT_THROW(recipe.bind("run", two.options()), InternalError);
}

TEST(Recipe, FileThatCannotBeReadIsBadInput) {
    EXPECT_THROW((void)Recipe::read("no_such_recipe.ini"), BadInput);
    EXPECT_THROW((void)Recipe::read("/"), BadInput);
}

}  // namespace
}  // namespace rankwise::app
