#include "src/app/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "src/app/chart.hpp"

namespace rankwise::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class Report : public testing::Test {
  protected:
    void SetUp() override {
        const auto* test = testing::UnitTest::GetInstance()->current_test_info();
        root_ = std::filesystem::temp_directory_path() /
                fmt::format("rankwise_report_{}_{}", test->name(), ::getpid());
        std::filesystem::create_directories(root_);
        paths_.root = root_;
    }
    void TearDown() override { std::filesystem::remove_all(root_); }
    void write(const std::filesystem::path& path, const std::string& text) {
        std::ofstream(path) << text;
    }
    static std::string read(const std::filesystem::path& path) {
        std::ostringstream text;
        text << std::ifstream(path).rdbuf();
        return text.str();
    }
    std::filesystem::path root_;
    RunPaths paths_;
    std::unique_ptr<io::FileSystem> fs_ = io::posix_file_system();
};

std::string some_metrics() {
    std::string text = R"({"stage":"teacher","step":0,"record":"evaluation","eval/pass@1":0.0})"
                       "\n";
    for (int i = 1; i <= 30; ++i) {
        text += fmt::format(
            R"({{"stage":"teacher","step":{},"loss":{},"time/forward":0.25,"digest/weights":"d{}","kl":null}})"
            "\n",
            i, 3.0 / i, i);
    }
    text += R"({"stage":"teacher","step":30,"record":"evaluation","eval/pass@1":0.25})"
            "\n";
    text += R"({"stage":"zero","step":5,"record":"evaluation","eval/pass@1":0.75})"
            "\n";
    return text;
}

TEST_F(Report, HoldsEvaluationsCurvesAnswersAndNeedsNoNetwork) {
    write(paths_.metrics(), some_metrics());
    write(paths_.samples(),
          R"({"stage":"teacher","step":30,"prompt":"7,3->10","answer":"<b>7-3</b>","reward":0.2})"
          "\n"
          R"({"stage":"zero","step":5,"prompt":"7,3->10","answer":"7+3","reward":1.2})"
          "\n"
          R"({"stage":"zero","step":5,"prompt":"other","answer":"x","reward":1.2})"
          "\n");
    write(paths_.recipe(), "[run]\nstages = teacher, zero\n");
    write(
        paths_.memory(),
        R"({"stage":"teacher","memory/planned_bytes":200000000,"memory/peak_bytes":90000000})"
        "\n"
        R"({"stage":"teacher","memory/planned_bytes":200000000,"memory/peak_bytes":150000000,)"
        R"("traffic/planned_bytes/update/tensor":4000000,"traffic/sent_bytes/update/tensor":3000000,)"
        R"("traffic/planned_bytes/other/world":0,"traffic/sent_bytes/other/world":1500})"
        "\n");
    EXPECT_EQ(write_report(*fs_, paths_), paths_.report());
    const std::string html = read(paths_.report());
    EXPECT_THAT(html, HasSubstr("<svg class=\"chain\""));
    EXPECT_THAT(html, HasSubstr("href=\"#stage-teacher\""));
    EXPECT_THAT(html, HasSubstr("id=\"stage-teacher\" open"));
    EXPECT_THAT(html, HasSubstr("id=\"stage-zero\""));
    EXPECT_THAT(html, HasSubstr("<td>pass@1</td><td>0</td><td>0.250</td><td class=\"last\">0.750"));
    EXPECT_THAT(html, HasSubstr("weights after the last: <code>d30</code>"));
    EXPECT_THAT(html, HasSubstr("aria-label=\"loss\""));
    EXPECT_THAT(html, HasSubstr("forward 100 %"));
    EXPECT_THAT(html, HasSubstr("<td>200</td><td>150</td><td>75 %</td>"));
    EXPECT_THAT(html, HasSubstr("<td>update</td><td>tensor</td><td>4.000</td><td>3.000</td>"
                                "<td>75 %</td>"));
    EXPECT_THAT(html, HasSubstr("<td>other</td><td>world</td><td>–</td><td>0.002</td><td></td>"));
    EXPECT_THAT(html, HasSubstr("The same problem, early and late"));
    EXPECT_THAT(html, HasSubstr("&lt;b&gt;7-3&lt;/b&gt;"));
    EXPECT_THAT(html, HasSubstr("stages = teacher, zero"));
    EXPECT_THAT(html, Not(HasSubstr("http")));
    EXPECT_THAT(html, Not(HasSubstr("src=")));
}

TEST_F(Report, HasARowForEachStageThatWasMeasuredAndMarksOtherModels) {
    write(
        paths_.metrics(),
        R"({"stage":"zero","step":9,"record":"evaluation","eval/pass@1":0.25,"eval/pass@1/ci95_low":0.2,)"
        R"("eval/pass@1/ci95_high":0.3,"eval/cons@8":0.5,"eval/cons@8/ci95_low":0.45,)"
        R"("eval/cons@8/ci95_high":0.55,"eval/pass@1/easy":0.75,"eval/problems/easy":12,)"
        R"("eval/completions/mean_length/easy":31.5,"eval/restarts":0.5})"
        "\n"
        R"({"stage":"check","step":1,"record":"evaluation","eval/pass@1":0.5})"
        "\n"
        R"({"stage":"tiny","step":4,"record":"evaluation","eval/pass@1":0.125})"
        "\n");
    write(paths_.samples(),
          R"({"stage":"zero","step":9,"prompt":"7,3->10","answer":"7-3, wait <b>","reward":0,)"
          R"("record":"evaluation","right":false})"
          "\n"
          R"({"stage":"check","step":1,"prompt":"7,3->10","answer":"7+3","reward":1,)"
          R"("record":"evaluation","right":true})"
          "\n");
    write(paths_.recipe(),
          "[run]\nstages = zero, check, tiny\n[stage.zero]\nkind = grpo\n[stage.check]\n"
          "kind = evaluate\n[stage.tiny]\nkind = sft\nmodel = small\n");
    (void)write_report(*fs_, paths_);
    const std::string html = read(paths_.report());
    EXPECT_THAT(html, HasSubstr("<tr><td class=\"stage m0\"><b>zero</b><small>grpo</small></td>"));
    EXPECT_THAT(html, HasSubstr("<b>check</b><small>of zero</small>"));
    EXPECT_THAT(html, HasSubstr("<tr class=\"other\"><td class=\"stage m1\"><b>tiny</b> <span "
                                "class=\"badge\" title=\"\">small</span>"));
    EXPECT_THAT(html, HasSubstr("25.0 %<svg class=\"bar\""));
    EXPECT_THAT(html, HasSubstr("<small>20.0–30.0</small>"));
    EXPECT_THAT(html, HasSubstr(">vote of 8</th>"));
    EXPECT_THAT(html, HasSubstr("<td>50.0 %<small>45.0–55.0</small></td>"));
    EXPECT_THAT(html, HasSubstr("<td>0.50<small></small></td>"));  // restarts
    EXPECT_THAT(html, HasSubstr("<td class=\"first\">75.0 %</td><td>–</td>"));
    EXPECT_THAT(html, HasSubstr("<td class=\"first\">31.5</td>"));
    EXPECT_THAT(html, HasSubstr("One problem, as answered after each stage"));
    EXPECT_THAT(html, HasSubstr("7-3, <mark>wait</mark> &lt;b&gt;"));
    EXPECT_THAT(html, HasSubstr("✗ wrong"));
    EXPECT_THAT(html, HasSubstr("✓ right"));
    EXPECT_THAT(html, Not(HasSubstr("ci95")));
}

TEST_F(Report, WorksOnARunThatHasJustBegun) {
    write(paths_.metrics(), "");
    (void)write_report(*fs_, paths_);
    EXPECT_THAT(read(paths_.report()), HasSubstr("No step has been done yet."));
}

TEST_F(Report, DirectoryWithoutMetricsIsRefused) {
    EXPECT_THROW((void)write_report(*fs_, paths_), BadInput);
}

TEST_F(Report, TornLastLineIsLeftOutAndADamagedOneNamed) {
    write(paths_.metrics(), some_metrics() + R"({"stage":"zero","st)");
    EXPECT_EQ(read_metrics(*fs_, paths_.metrics()).size(), 33U);
    write(paths_.metrics(), "{\"stage\":\"zero\",\"step\":1}\nnonsense\n{}\n");
    try {
        (void)read_metrics(*fs_, paths_.metrics());
        FAIL();
    } catch (const CorruptFile& error) {
        EXPECT_THAT(error.what(), HasSubstr("metrics.jsonl:2: expected a JSON object"));
    }
}

TEST_F(Report, SamplesReadBackEqualAndResumeDropsThoseThatWillComeAgain) {
    const auto sample = [](std::string stage, std::int64_t step) {
        return SampleRecord{std::move(stage), step, {"p\"\n", "ü\xff", 0.1}, step == 2};
    };
    {
        SampleWriter writer(*fs_, paths_.samples(), std::nullopt);
        for (const auto& record :
             {sample("a", 1), sample("a", 9), sample("b", 2), sample("b", 4)}) {
            writer.append(record);
        }
    }
    const auto all = read_samples(*fs_, paths_.samples());
    ASSERT_EQ(all.size(), 4U);
    EXPECT_EQ(all[0].sample.prompt, "p\"\n");
    EXPECT_EQ(all[0].sample.answer, "ü\uFFFD");
    EXPECT_EQ(all[0].sample.reward, 0.1);
    EXPECT_TRUE(all[2].evaluation);
    {
        SampleWriter writer(*fs_, paths_.samples(), io::MetricPosition{"b", 2});
        writer.append(sample("b", 3));
    }
    std::vector<std::int64_t> steps;
    for (const auto& record : read_samples(*fs_, paths_.samples())) steps.push_back(record.step);
    EXPECT_THAT(steps, ElementsAre(1, 9, 2, 3));
    SampleWriter anew(*fs_, paths_.samples(), std::nullopt);
    EXPECT_TRUE(read_samples(*fs_, paths_.samples()).empty());
}

TEST(Chart, TicksAreRoundAndInside) {
    EXPECT_THAT(round_ticks(0.0, 1.0, 5),
                ElementsAre(0.0, 0.2, testing::DoubleEq(0.4), testing::DoubleEq(0.6), 0.8, 1.0));
    EXPECT_THAT(round_ticks(-3.0, 4.0, 4), ElementsAre(-2.0, 0.0, 2.0, 4.0));
    EXPECT_TRUE(round_ticks(1.0, 1.0, 5).empty());
}

TEST(Chart, ManyPointsAreThinnedAndConstantOnesStillDraw) {
    Chart chart{.title = "a<b"};
    for (int i = 0; i < 5000; ++i) chart.points.emplace_back(i, 1.0);
    const std::string svg = to_svg(chart);
    EXPECT_LT(svg.size(), 60000U);
    EXPECT_THAT(svg, HasSubstr("a&lt;b"));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

}  // namespace
}  // namespace rankwise::app
