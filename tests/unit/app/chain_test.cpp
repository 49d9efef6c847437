// The chain of stages as the recipe tells it, and its picture.
#include "src/app/chain.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "src/app/chain_chart.hpp"

namespace rankwise::app {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kRecipe = R"(# as a run writes it
[run]
stages = base, kept, cold, small_base, distilled, measure    # logical; r1.ini:3
[model.policy]
folder =                 # logical; default
family = qwen2           # logical; default
hidden_size = 128        # logical; default
num_hidden_layers = 4    # logical; default
[model.small]
folder = /models/tiny    # logical; r1.ini:9
[stage.base]
model = policy           # logical; default
start_from =             # logical; default
kind = sft               # logical; r1.ini:12
data =                   # logical; default
[stage.kept]
kind = reject
[stage.cold]
start_from = base
kind = sft
data = kept
[stage.small_base]
model = small
kind = sft
[stage.distilled]
model = small
kind = sft
data = kept
[stage.measure]
start_from = random
kind = evaluate
)";

TEST(Chain, KnowsWhatEachStageStartsFromAndLearnsFrom) {
    const std::vector<ChainStage> chain = chain_of(kRecipe, {});
    ASSERT_EQ(chain.size(), 6U);
    EXPECT_EQ(chain[0].kind, "sft");
    EXPECT_EQ(chain[0].model, "policy");
    EXPECT_EQ(chain[0].shape, "qwen2, 4 layers of 128");
    EXPECT_FALSE(chain[0].from);
    EXPECT_EQ(chain[0].start, "random");
    EXPECT_FALSE(chain[0].data);
    EXPECT_EQ(chain[1].from, 0U);  // the last stage with the same model
    EXPECT_EQ(chain[2].from, 0U);  // the stage that it names
    EXPECT_EQ(chain[2].start, "");
    EXPECT_EQ(chain[2].data, 1U);
    EXPECT_FALSE(chain[3].from);
    EXPECT_EQ(chain[3].start, "/models/tiny");
    EXPECT_EQ(chain[3].shape, "/models/tiny");
    EXPECT_EQ(chain[4].from, 3U);  // not the policy's stage that ran between
    EXPECT_EQ(chain[4].data, 1U);
    EXPECT_FALSE(chain[5].from);
    EXPECT_EQ(chain[5].start, "random");
    EXPECT_EQ(place_of(chain, "distilled"), 4U);
    EXPECT_FALSE(place_of(chain, "nobody"));
}

TEST(Chain, StagesThatOnlyTheMetricsKnowFollow) {
    const std::vector<MetricRecord> metrics{{.stage = "a"}, {.stage = "b"}, {.stage = "a"}};
    const std::vector<ChainStage> chain = chain_of("no recipe [ = at all\n[x", metrics);
    ASSERT_EQ(chain.size(), 2U);
    EXPECT_EQ(chain[1].name, "b");
    EXPECT_EQ(chain[1].from, 0U);
    EXPECT_TRUE(chain_of("", {}).empty());
}

/// How often a text stands in another.
std::size_t count_in(const std::string& text, std::string_view part) {
    std::size_t count = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
        ++count;
    return count;
}

TEST(ChainPicture, HasABoxAStageAndArrowsForWeightsAndData) {
    std::vector<MetricRecord> metrics;
    for (int i = 1; i <= 100; ++i)
        metrics.push_back({.stage = "base", .step = i, .numbers = {{"loss", 5.0 / i}}});
    metrics.push_back(
        {.stage = "base", .step = 100, .evaluation = true, .numbers = {{"eval/pass@1", 0.125}}});
    metrics.push_back({.stage = "kept", .step = 1, .numbers = {{"reward", 0.5}, {"kept", 37.0}}});
    const std::vector<ChainStage> chain = chain_of(kRecipe, metrics);
    const std::string svg = chain_svg(chain, metrics);
    EXPECT_EQ(count_in(svg, "class=\"box\""), 6U);
    EXPECT_EQ(count_in(svg, "class=\"arrow\""), 3U);
    EXPECT_EQ(count_in(svg, "class=\"arrow data\""), 2U);
    EXPECT_EQ(count_in(svg, "class=\"spark\""), 1U);
    EXPECT_EQ(count_in(svg, "class=\"m1\""), 2U);  // the other model's stages
    EXPECT_THAT(svg, HasSubstr(">12.5 %</text>"));
    EXPECT_THAT(svg, HasSubstr("sft · 100 steps"));
    EXPECT_THAT(svg, HasSubstr("reject · 37 kept"));
    EXPECT_THAT(svg, HasSubstr("sft · to come"));
    EXPECT_THAT(svg, HasSubstr("href=\"#stage-base\""));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_EQ(chain_svg({}, {}), "");
}

/// A level or upright part of a path.
struct Stretch {
    bool level = false;
    double where = 0.0;
    double begin = 0.0;
    double end = 0.0;
};
std::vector<Stretch> runs_of(std::string path) {
    std::vector<Stretch> runs;
    if (path.find('H') != std::string::npos) return runs;  // from box to box: nothing else is there
    std::ranges::replace_if(
        path, [](char c) { return c == 'M' || c == 'L' || c == 'Q'; }, ' ');
    std::istringstream numbers(path);
    std::vector<std::pair<double, double>> points;
    for (double x = 0.0, y = 0.0; numbers >> x >> y;) points.emplace_back(x, y);
    for (std::size_t i = 1; i < points.size(); ++i) {
        const auto [x0, y0] = points[i - 1];
        const auto [x1, y1] = points[i];
        if (y0 == y1) runs.push_back({true, y0, std::min(x0, x1), std::max(x0, x1)});
        if (x0 == x1) runs.push_back({false, x0, std::min(y0, y1), std::max(y0, y1)});
    }
    return runs;
}

TEST(ChainPicture, LongChainsWrapAndNoTwoArrowsRunOverEachOther) {
    std::vector<ChainStage> chain;
    for (std::size_t i = 0; i < 14; ++i) {
        chain.push_back({.name = fmt::format("stage{}", i), .kind = "sft", .model = "policy"});
        if (i > 0) chain.back().from = i % 3 == 0 ? 0 : i - 1;
        if (i > 4) chain.back().data = i - 4;
    }
    const std::string svg = chain_svg(chain, {});
    EXPECT_EQ(count_in(svg, "class=\"box\""), 14U);
    EXPECT_EQ(count_in(svg, "class=\"arrow"), 13U + 9U);
    EXPECT_EQ(count_in(svg, "x=\"1.0\""), 3U);  // boxes that begin a row
    std::vector<Stretch> all;
    for (std::size_t at = svg.find("class=\"arrow"); at != std::string::npos;
         at = svg.find("class=\"arrow", at + 1)) {
        const std::size_t begin = svg.find(" d=\"", at) + 4;
        for (const Stretch& run : runs_of(svg.substr(begin, svg.find('"', begin) - begin))) {
            for (const Stretch& other : all) {
                const bool over = run.level == other.level && run.where == other.where &&
                                  run.begin < other.end && other.begin < run.end;
                EXPECT_FALSE(over) << (run.level ? "y " : "x ") << run.where << " from "
                                   << run.begin << " to " << run.end;
            }
            all.push_back(run);
        }
    }
    EXPECT_GT(all.size(), 40U);
}

TEST(ChainPicture, NamesAreEscapedAndCut) {
    const std::vector<ChainStage> chain{
        {.name = "<b>" + std::string(60, 'x'), .kind = "grpo", .model = "a&b"}};
    const std::string svg = chain_svg(chain, {});
    EXPECT_THAT(svg, HasSubstr("&lt;b&gt;xxx"));
    EXPECT_THAT(svg, HasSubstr("…</text>"));
    EXPECT_THAT(svg, HasSubstr("a&amp;b"));
    EXPECT_THAT(svg, Not(HasSubstr("<b>")));
}

}  // namespace
}  // namespace rankwise::app
