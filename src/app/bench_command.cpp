// rankwise bench: how near to the limits of the machine everything is.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "src/app/bench_report.hpp"
#include "src/app/bench_rows.hpp"
#include "src/app/build_facts.hpp"
#include "src/app/command_io.hpp"
#include "src/app/command_options.hpp"
#include "src/app/commands.hpp"
#include "src/app/stop.hpp"

namespace rankwise::app {
namespace {

/// What stands on the command line.
struct Asked {
    BenchOptions options;
    BenchSizes sizes = usual_sizes();
    std::string only;
    std::string json;
    std::string compare;
    bool list = false;

    void read(const Arguments& arguments) {
        std::vector<std::string> problems;
        sizes.decode_batches.clear();
        std::int64_t threads = 0;
        std::vector<double> batches;
        OptionList own;
        own.logical("threads", &threads, "").at_least(1).at_most(1024);
        own.logical("seconds", &options.meter.seconds, "").at_least(0);
        std::int64_t prompts = 0;
        own.logical("batches", &batches, "");
        own.logical("prompts", &prompts, "").at_least(1).at_most(4096);
        own.logical("rounds", &options.meter.least_rounds, "").at_least(1);
        read_options(arguments, own, problems);
        Recipe settings("", "command line", arguments.settings);
        settings.bind("device", options.device.options());
        settings.bind("parallel", options.parallel.options());
        settings.bind("generation", options.generation.options());
        settings.bind("update", options.update.options());
        try {
            settings.finish();
        } catch (const Problems& found) {
            problems.insert(problems.end(), found.list().begin(), found.list().end());
        }
        if (threads > 0) options.device.threads = threads;
        options.processor_time = arguments.has("processor-time");
        if (options.processor_time && options.device.threads > 1) {
            problems.emplace_back(
                "--processor-time: is that of one thread, so it goes with --threads 1 only");
        }
        options.meter.most_rounds = std::max(options.meter.most_rounds, options.meter.least_rounds);
        options.meter.limits = !arguments.has("no-limits");
        options.folder = arguments.get("folder", "rankwise_bench_files");
        only = arguments.get("only");
        json = arguments.get("json");
        compare = arguments.get("compare");
        list = arguments.has("list");
        for (const double batch : batches) {
            if (batch >= 1.0 && batch == std::floor(batch) && batch <= 65536.0)
                sizes.decode_batches.push_back(static_cast<std::int64_t>(batch));
            else
                problems.push_back(fmt::format("--batches: {} is no number of answers", batch));
        }
        if (prompts > 0) {
            for (BenchModel& model : sizes.models) model.prompts = prompts;
        }
        if (sizes.decode_batches.empty()) sizes.decode_batches = usual_sizes().decode_batches;
        if (!problems.empty()) throw Problems(std::move(problems));
    }
};

/// Rows that write files do so in a folder that is removed at the end.
void require_new_folder(const io::Path& folder, std::span<const BenchRow> rows) {
    const bool written = std::ranges::any_of(
        rows, [](const BenchRow& row) { return row.name.starts_with("checkpoint/"); });
    require(!written || !std::filesystem::exists(folder),
            "--folder {}: is there already; its files would be removed at the end: name one that "
            "is not, or remove what an earlier run left",
            folder.string());
}

BenchResult measure(BenchContext& context, const BenchRow& row) {
    Meter meter(context.limits(), context.world(), context.clock(), context.options().meter);
    BenchResult result{.name = row.name};
    result.facts = row.run(context, meter);
    result.measured = meter.measured();
    result.parts = meter.parts();
    return result;
}

}  // namespace

int run_bench(const Arguments& arguments, Session& session) {
    Asked asked;
    std::vector<BenchRow> rows;
    session.start_together([&] {
        asked.read(arguments);
        rows = chosen_rows(bench_rows(asked.sizes, asked.options, session.size()), asked.only);
        if (!asked.list) require_new_folder(asked.options.folder, rows);
    });
    remove_stop_signals();  // nothing is kept that would have to be saved
    const bool prints = session.rank() == 0;
    if (asked.list) {
        for (const BenchRow& row : rows) {
            if (prints) fmt::print("{:<34} {}\n", row.name, row.what);
        }
        return static_cast<int>(ExitCode::done);
    }
    std::unique_ptr<BenchContext> context;
    session.start_together([&] {
        context = std::make_unique<BenchContext>(session, asked.options, asked.sizes);
        const bool split = context->mesh().degree(parallel::Axis::tensor) > 1;
        for (const BenchRow& row : rows) {
            const bool over_tensor =
                row.name.starts_with("update/") || row.name.starts_with("generate/") ||
                row.name.starts_with("canonical/") || row.name.starts_with("sum/");
            require(!split || over_tensor,
                    "[parallel] tensor: {} is measured on data ranks alone; add --only "
                    "update,generate,canonical,sum",
                    row.name);
        }
    });
    BenchReport report{.machine = this_machine(),
                       .program = fmt::format("{} {}", build_facts().version, build_facts().commit),
                       .device = context->device().description() +
                                 (asked.options.processor_time ? ", processor time" : ""),
                       .ranks = session.size()};
    BenchReport before;
    Output json;
    session.start_on_main([&] {
        if (!asked.compare.empty()) {
            const std::vector<std::byte> bytes = io::read_file(context->files(), asked.compare);
            before = report_from_json(
                std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()),
                asked.compare);
            require_comparable(report, before, asked.compare);
        }
        if (!asked.json.empty()) json.open(asked.json);
    });
    if (prints) {
        fmt::print("{}\n{} rank{}, {}, program {}\n\n{}", to_string(report.machine), report.ranks,
                   report.ranks == 1 ? "" : "s", report.device, report.program,
                   table_head(!asked.compare.empty()));
    }
    const LoadMeter load;
    const double begin_s = processor_seconds();
    for (const BenchRow& row : rows) {
        report.results.push_back(measure(*context, row));
        if (!prints) continue;
        fmt::print("{}", table_line(report.results.back(), find_row(before, row.name)));
        std::fflush(stdout);
    }
    // All ranks of one machine count as this measurement.
    const std::vector<double> mine{processor_seconds() - begin_s};
    double own_s = 0.0;
    for (const double seconds : session.world().gather_v("bench:load", mine, 0).values)
        own_s += seconds;
    if (!prints) return static_cast<int>(ExitCode::done);
    report.load = load.load(own_s);
    fmt::print("\n{}", load_line(report.load));
    if (json.is_open()) {
        json.write(to_json(report));
        json.close();
    }
    return static_cast<int>(ExitCode::done);
}

}  // namespace rankwise::app
