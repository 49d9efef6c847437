#include "io/metrics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/fault/io/faulty_fs.hpp"
#include "tests/unit/io/scratch.hpp"

namespace rankwise::io {
namespace {

using test::expect_error;
using test::Scratch;

class Metrics : public testing::Test {
  protected:
    void write(const std::string& stage, std::int64_t first, std::int64_t last,
               const std::optional<MetricPosition>& resume = std::nullopt) {
        MetricsWriter writer(*fs_, path_, resume);
        for (std::int64_t step = first; step <= last; ++step) {
            writer.append({{"stage", stage}, {"step", step}});
        }
        writer.sync();
    }
    [[nodiscard]] std::string line(const std::string& stage, std::int64_t step) const {
        return fmt::format("{{\"stage\": \"{}\", \"step\": {}}}\n", stage, step);
    }
    [[nodiscard]] std::string after(const MetricPosition& resume) {
        (void)MetricsWriter(*fs_, path_, resume);
        return test::get(path_);
    }

    std::unique_ptr<FileSystem> fs_ = posix_file_system();
    Scratch scratch_;
    Path path_ = scratch_ / "metrics.jsonl";
};

TEST_F(Metrics, ALineKeepsTheOrderOfKeysAndTheBitsOfDoubles) {
    EXPECT_EQ(to_json({{"step", std::int64_t{3}},
                       {"reward", 0.1},
                       {"kl", 1e-300},
                       {"whole", 2.0},
                       {"zero", -0.0},
                       {"large", 1e22},
                       {"nan", std::nan("")},
                       {"inf", std::numeric_limits<double>::infinity()},
                       {"ok", true},
                       {"text", std::string("a\"b\n\xFF")}}),
              "{\"step\": 3, \"reward\": 0.1, \"kl\": 1e-300, \"whole\": 2.0, \"zero\": -0.0, "
              "\"large\": 1e+22, "
              "\"nan\": null, \"inf\": null, \"ok\": true, \"text\": \"a\\\"b\\n\xEF\xBF\xBD\"}");
    for (const double value : {1.0 / 3, 0.1 + 0.2, 5e-324, 1.7976931348623157e308}) {
        const std::string text = to_json({{"x", value}});
        EXPECT_EQ(std::strtod(text.c_str() + 6, nullptr), value) << text;
    }
}

TEST_F(Metrics, ANewRunAppends) {
    write("base", 1, 2);
    write("base", 3, 3);
    EXPECT_EQ(test::get(path_), line("base", 1) + line("base", 2) + line("base", 3));
}

TEST_F(Metrics, ResumingDropsLaterStepsAndLaterStages) {
    write("base", 1, 3);
    write("zero", 1, 4);
    write("final", 1, 2);
    const std::string all = test::get(path_);
    EXPECT_EQ(after({"final", 2}), all);
    EXPECT_EQ(after({"zero", 4}), all.substr(0, all.find(line("final", 1))));
    EXPECT_EQ(after({"zero", 2}), all.substr(0, all.find(line("zero", 3))));
    EXPECT_EQ(after({"zero", 0}), line("base", 1) + line("base", 2) + line("base", 3));
    EXPECT_EQ(after({"zero", 0}), line("base", 1) + line("base", 2) + line("base", 3));
    EXPECT_EQ(after({"base", 0}), "");
}

TEST_F(Metrics, ATornLastLineIsDropped) {
    write("base", 1, 2);
    const std::string whole = test::get(path_);
    for (const char* torn : {"{\"stage\": \"ba", "{\"stage\n", "\n"}) {
        test::put(path_, whole + torn);
        write("base", 3, 3);
        EXPECT_EQ(test::get(path_), whole + line("base", 3)) << torn;
    }
}

TEST_F(Metrics, AFileThatIsNoMetricsIsLeftAlone) {
    test::put(path_, "{\"step\": 1}\nhello\n{\"step\": 2}\n");
    expect_error<CorruptFile>(
        [&] {
            MetricsWriter(*fs_, path_, MetricPosition{"base", 0});
        },
        {"metrics.jsonl:2", "no JSON object"});
    EXPECT_EQ(test::get(path_), "{\"step\": 1}\nhello\n{\"step\": 2}\n");
}

TEST_F(Metrics, AFullDiskLosesNoEarlierLine) {
    write("base", 1, 1);
    test::FaultyFileSystem faulty(*fs_);
    MetricsWriter writer(faulty, path_, std::nullopt);
    faulty.fail(faulty.operations() + 1, ENOSPC);
    expect_error<EnvironmentError>(
        [&] {
            writer.append({{"step", std::int64_t{2}}});
        },
        {"metrics.jsonl", "No space left"});
    writer.append({{"step", std::int64_t{2}}});
    EXPECT_EQ(test::get(path_), line("base", 1) + "{\"step\": 2}\n");
}

}  // namespace
}  // namespace rankwise::io
