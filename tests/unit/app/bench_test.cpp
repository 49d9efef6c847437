#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "parallel/self_communicator.hpp"
#include "src/app/bench_report.hpp"
#include "src/app/bench_rows.hpp"
#include "src/app/recipe.hpp"
#include "src/app/thread_ranks.hpp"
#include "tests/support/throws.hpp"

namespace rankwise::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

BenchModel tiny_model() {
    model::ModelConfig config;
    config.vocab_size = 64;  // as many ids as the characters of the prompts need
    config.hidden = 16;
    config.layers = 1;
    config.heads = 2;
    config.kv_heads = 1;
    config.head_dim = 8;
    config.intermediate = 24;
    config.max_position = 64;
    config.tied = true;
    return {.name = "tiny",
            .config = config,
            .update_rows = 2,
            .update_tokens = 8,
            .prompts = 2,
            .samples = 2,
            .prompt_tokens = 20,
            .new_tokens = 4};
}

BenchSizes tiny_sizes() {
    return {.matmuls = {{16, 24}},
            .matmul_rows = {3},
            .update_rows = 5,
            .attention_tokens = {70},
            .head_vocabulary = 48,
            .elements = 2048,
            .models = {tiny_model()},
            .decode_batches = {1, 2},
            .prefill_prompts = 2,
            .prefill_tokens = 8,
            .stream_bytes = 1 << 20,
            .link_bytes = 1 << 10};
}

BenchOptions quick_options() {
    BenchOptions options{.meter = {.seconds = 0.0, .least_rounds = 2}};
    options.folder =
        std::filesystem::temp_directory_path() / fmt::format("rankwise_bench_test_{}", ::getpid());
    return options;
}

BenchResult some_result(const std::string& name, double seconds) {
    return {.name = name,
            .measured = {.rounds = 3,
                         .seconds = seconds,
                         .seconds_low = 0.75 * seconds,
                         .seconds_high = 1.25 * seconds,
                         .limit_seconds = 0.5 * seconds,
                         .share = 0.5,
                         .limit = "peak"},
            .facts = {.work = {.flop = 4e9, .bytes = 2e6}, .units = 2048, .unit = "tokens"},
            .parts = {{"generate", 0.25 * seconds}, {"update", 0.75 * seconds}}};
}

BenchReport some_report() {
    return {.machine = {.processor = "Some CPU (family 1 model 2 stepping 3)",
                        .cores = 2,
                        .instruction_sets = {"avx2"},
                        .host = "here"},
            .program = "0.1.0 abc",
            .device = "cpu (avx2, 1 thread)",
            .ranks = 1,
            .load = {.others_cores = 0.25, .steal_percent = 1.0, .average_begin = {1.0, 2.0, 3.0}},
            .results = {some_result("update/tiny", 0.5), {.name = "limits/link"}}};
}

TEST(Bench, EveryRowOfTheTableRunsOnTinySizes) {
    const auto world = parallel::make_self_communicator({});
    Session session(*world, nullptr);
    const BenchSizes sizes = tiny_sizes();
    const BenchOptions options = quick_options();
    BenchContext context(session, options, sizes);
    const std::vector<BenchRow> rows = bench_rows(sizes, options, 1);
    std::vector<std::string> names;
    for (const BenchRow& row : rows) {
        SCOPED_TRACE(row.name);
        EXPECT_FALSE(row.what.empty());
        EXPECT_EQ(std::ranges::count(names, row.name), 0);
        names.push_back(row.name);
        Meter meter(context.limits(), context.world(), context.clock(), options.meter);
        const RowFacts facts = row.run(context, meter);
        const Timed measured = meter.measured();
        EXPECT_GE(measured.rounds, 2);
        EXPECT_GT(measured.seconds, 0.0);
        EXPECT_GE(measured.seconds_high, measured.seconds_low);
        EXPECT_GT(facts.work.flop + facts.work.bytes, 0.0);
        if (!row.name.starts_with("limits/")) {
            EXPECT_GT(measured.share, 0.0);
        }
    }
    EXPECT_THAT(names, testing::IsSupersetOf({"limits/fp32/avx2/1",
                                              "limits/stream/0",
                                              "matmul/16x24/3",
                                              "matmul_update/16x24",
                                              "attention/forward/70",
                                              "attention/backward/70",
                                              "attention/decode/70",
                                              "norm/forward",
                                              "swiglu/backward",
                                              "head",
                                              "adamw",
                                              "sampling",
                                              "digest",
                                              "update/tiny",
                                              "prefill/tiny",
                                              "generate/tiny",
                                              "decode/tiny/2",
                                              "attention_bf16/backward/70",
                                              "update_bf16/tiny",
                                              "decode_bf16/tiny/2",
                                              "grpo/tiny",
                                              "checkpoint/write/tiny",
                                              "checkpoint/read/tiny",
                                              "checkpoint/stall/tiny"}));
    EXPECT_FALSE(std::filesystem::exists(options.folder));
}

TEST(Bench, AWholeStepSaysTheTimesOfItsPhases) {
    const auto world = parallel::make_self_communicator({});
    Session session(*world, nullptr);
    const BenchSizes sizes = tiny_sizes();
    const BenchOptions options = quick_options();
    BenchContext context(session, options, sizes);
    Meter meter(context.limits(), context.world(), context.clock(), options.meter);
    const auto rows = chosen_rows(bench_rows(sizes, options, 1), "grpo");
    ASSERT_EQ(rows.size(), 1U);
    (void)rows.front().run(context, meter);
    std::vector<std::string> phases;
    for (const auto& [name, seconds] : meter.parts()) phases.push_back(name);
    EXPECT_THAT(phases, testing::IsSupersetOf({"generate", "reference", "update"}));
}

TEST(Bench, ASumOverRanksSaysMovementAndArithmeticApart) {
    for (const std::int64_t tensor : {1, 2}) {
        (void)run_on_threads(2, [&](Session& session) {
            const BenchSizes sizes = tiny_sizes();
            BenchOptions options = quick_options();
            options.parallel.tensor = tensor;
            BenchContext context(session, options, sizes);
            Meter meter(context.limits(), context.world(), context.clock(), options.meter);
            const auto rows = chosen_rows(bench_rows(sizes, options, 2), "sum");
            EXPECT_EQ(rows.size(), 1U);
            const RowFacts facts = rows.front().run(context, meter);
            EXPECT_GT(facts.work.bytes, 0.0);
            EXPECT_GT(meter.measured().seconds, 0.0);
            std::vector<std::string> parts;
            for (const auto& [name, seconds] : meter.parts()) parts.push_back(name);
            EXPECT_THAT(parts, ElementsAre("moving", "adding"));  // threads have no MPI beside them
            return 0;
        });
    }
}

TEST(Bench, AModelThatTensorRanksCannotShareIsAProblemThatSaysHowManyCan) {
    (void)run_on_threads(2, [&](Session& session) {
        BenchModel model = tiny_model();
        model.config.heads = 3;
        BenchOptions options = quick_options();
        options.parallel.tensor = 2;
        BenchContext context(session, options, tiny_sizes());
        EXPECT_THROW_WITH((void)context.models(model), BadInput,
                          "[parallel] tensor = 2: tiny has 3 heads");
        return 0;
    });
}

TEST(Bench, RowsAreChosenByNameOrByItsBeginning) {
    const auto names = [&](const std::string& only) {
        std::vector<std::string> chosen;
        for (const BenchRow& row : chosen_rows(
                 {{.name = "matmul/8x8/1"}, {.name = "matmul_update/8x8"}, {.name = "head"}}, only))
            chosen.push_back(row.name);
        return chosen;
    };
    EXPECT_THAT(names(""), ElementsAre("matmul/8x8/1", "matmul_update/8x8", "head"));
    EXPECT_THAT(names("matmul"), ElementsAre("matmul/8x8/1"));
    EXPECT_THAT(names("head,matmul/8x8"), ElementsAre("matmul/8x8/1", "head"));
}

TEST(Bench, AnUnknownRowIsAProblemThatListsThoseThereAre) {
    try {
        (void)chosen_rows({{.name = "matmul/8x8/1"}, {.name = "head"}}, "matmull,heads");
        FAIL() << "chosen";
    } catch (const Problems& problems) {
        ASSERT_EQ(problems.list().size(), 2U);
        EXPECT_THAT(
            problems.list()[0],
            testing::AllOf(HasSubstr("--only matmull: there is no such row"),
                           HasSubstr("did you mean matmul?"), HasSubstr("there are matmul, head")));
    }
}

TEST(Bench, JsonReadsBackEqual) {
    const BenchReport report = some_report();
    const std::string text = to_json(report);
    const BenchReport back = report_from_json(text, "x.json");
    EXPECT_EQ(to_json(back), text);
    EXPECT_EQ(back.machine, report.machine);
    ASSERT_NE(find_row(back, "update/tiny"), nullptr);
    EXPECT_EQ(find_row(back, "update/tiny")->measured.seconds, 0.5);
    EXPECT_EQ(find_row(back, "update/tiny")->parts, report.results.front().parts);
    EXPECT_EQ(find_row(back, "update"), nullptr);
}

TEST(Bench, AFileThatIsNoMeasurementIsRefusedByName) {
    for (const std::string text :
         {"", "[]", "{\"format\": \"other\"}", "{\"format\": \"rankwise bench 1\"}"}) {
        EXPECT_THROW_WITH((void)report_from_json(text, "x.json"), BadInput,
                          "x.json: is no file of rankwise bench --json");
    }
}

TEST(Bench, AnotherMachineOrDeviceIsNotCompared) {
    const BenchReport now = some_report();
    require_comparable(now, some_report(), "x.json");
    BenchReport other = some_report();
    other.machine.host = "there";  // machines have many names
    require_comparable(now, other, "x.json");
    other.machine.processor = "Another CPU";
    EXPECT_THROW_WITH(require_comparable(now, other, "x.json"), BadInput,
                      "x.json: was measured on another machine (Another CPU, 2 cores");
    other = some_report();
    other.device = "cpu (avx2, 2 threads)";
    EXPECT_THROW_WITH(require_comparable(now, other, "x.json"), BadInput,
                      "was measured with cpu (avx2, 2 threads) and 1 rank,");
    other = some_report();
    other.ranks = 2;
    EXPECT_THROW_WITH(require_comparable(now, other, "x.json"), BadInput, "and 2 ranks,");
}

TEST(Bench, ALineSaysWorkTimeSpreadRateAndShare) {
    const BenchReport before = some_report();
    const std::string line = table_line(some_result("update/tiny", 0.25), &before.results.front());
    EXPECT_THAT(line, HasSubstr("4.00 GFLOP"));
    EXPECT_THAT(line, HasSubstr("250.00 ms"));
    EXPECT_THAT(line, HasSubstr("25.0%"));
    EXPECT_THAT(line, HasSubstr("8.19 ktokens/s"));
    EXPECT_THAT(line, HasSubstr("0.50 of peak"));
    EXPECT_THAT(line, HasSubstr("2.000 x as fast"));
    EXPECT_THAT(line, HasSubstr("generate 62.50 ms, update 187.50 ms"));
    EXPECT_THAT(table_line(before.results.back(), nullptr), HasSubstr("nothing to measure"));
}

TEST(Bench, ABusyMachineIsSaidToBeOne) {
    EXPECT_THAT(load_line({.others_cores = 0.5}), HasSubstr("was not quiet"));
    EXPECT_THAT(load_line({.others_cores = 0.05}), testing::Not(HasSubstr("was not quiet")));
}

TEST(Bench, QuantilesLieBetweenValues) {
    EXPECT_EQ(quantile({3.0, 1.0, 2.0}, 0.5), 2.0);
    EXPECT_EQ(quantile({1.0, 2.0}, 0.5), 1.5);
    EXPECT_EQ(quantile({5.0}, 0.25), 5.0);
    EXPECT_EQ(quantile({0.0, 10.0, 20.0, 30.0, 40.0}, 0.25), 10.0);
}

}  // namespace
}  // namespace rankwise::app
