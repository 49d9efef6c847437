#include "src/app/bench_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

namespace rankwise::app {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "rankwise bench 1";

/// "41.3 G": three digits with a factor of a thousand.
std::string scaled(double value) {
    static constexpr std::array<const char*, 5> kFactors{"", "k", "M", "G", "T"};
    std::size_t factor = 0;
    while (std::abs(value) >= 999.5 && factor + 1 < kFactors.size()) {
        value /= 1000.0;
        ++factor;
    }
    const int decimals = value >= 99.95 || value == 0.0 ? 0 : value >= 9.995 ? 1 : 2;
    return fmt::format("{:.{}f} {}", value, decimals, kFactors[factor]);
}

std::string time_text(double seconds) {
    if (seconds < 1e-3) return fmt::format("{:.1f} us", seconds * 1e6);
    if (seconds < 1.0) return fmt::format("{:.2f} ms", seconds * 1e3);
    return fmt::format("{:.3f} s", seconds);
}

std::string work_text(const BenchWork& work) {
    if (work.flop > 0.0) return scaled(work.flop) + "FLOP";
    return work.bytes > 0.0 ? scaled(work.bytes) + "B" : "";
}

std::string rate_text(const BenchResult& result) {
    const double seconds = result.measured.seconds;
    if (seconds <= 0.0) return "";
    const RowFacts& facts = result.facts;
    if (!facts.unit.empty() && facts.unit != "GB")
        return fmt::format("{}{}/s", scaled(facts.units / seconds), facts.unit);
    if (facts.work.flop > 0.0) return scaled(facts.work.flop / seconds) + "FLOP/s";
    return scaled(facts.work.bytes / seconds) + "B/s";
}

json json_of(const BenchResult& result) {
    const Timed& measured = result.measured;
    json row = {{"name", result.name},
                {"rounds", measured.rounds},
                {"seconds", measured.seconds},
                {"seconds_low", measured.seconds_low},
                {"seconds_high", measured.seconds_high},
                {"flop", result.facts.work.flop},
                {"bytes", result.facts.work.bytes}};
    if (!result.facts.unit.empty()) {
        row["unit"] = result.facts.unit;
        row["units"] = result.facts.units;
        row["units_per_s"] = measured.seconds > 0.0 ? result.facts.units / measured.seconds : 0.0;
    }
    if (!measured.limit.empty()) {
        row["limit"] = measured.limit;
        row["limit_seconds"] = measured.limit_seconds;
        row["share"] = measured.share;
    }
    for (const auto& [name, seconds] : result.parts) row["parts"][name] = seconds;
    return row;
}

BenchResult result_of(const json& row) {
    BenchResult result{.name = row.at("name").get<std::string>()};
    result.measured = {.rounds = row.at("rounds").get<std::int64_t>(),
                       .seconds = row.at("seconds").get<double>(),
                       .seconds_low = row.at("seconds_low").get<double>(),
                       .seconds_high = row.at("seconds_high").get<double>(),
                       .limit_seconds = row.value("limit_seconds", 0.0),
                       .share = row.value("share", 0.0),
                       .limit = row.value("limit", std::string())};
    result.facts = {
        .work = {.flop = row.at("flop").get<double>(), .bytes = row.at("bytes").get<double>()},
        .units = row.value("units", 0.0),
        .unit = row.value("unit", std::string())};
    if (row.contains("parts")) {
        for (const auto& [name, seconds] : row["parts"].items())
            result.parts.emplace_back(name, seconds.get<double>());
    }
    return result;
}

}  // namespace

std::string table_head(bool compared) {
    return fmt::format("{:<34} {:>10} {:>11} {:>6} {:>22} {:>22}{}\n", "row", "work", "time", "+-",
                       "rate", "share of the limit", compared ? "  against before" : "");
}

std::string table_line(const BenchResult& result, const BenchResult* before) {
    const Timed& measured = result.measured;
    if (measured.rounds == 0) return fmt::format("{:<34} nothing to measure here\n", result.name);
    const double spread =
        measured.seconds > 0.0
            ? 50.0 * (measured.seconds_high - measured.seconds_low) / measured.seconds
            : 0.0;
    const std::string share =
        measured.limit.empty() ? "" : fmt::format("{:.2f} of {}", measured.share, measured.limit);
    std::string line = fmt::format("{:<34} {:>10} {:>11} {:>5.1f}% {:>22} {:>22}", result.name,
                                   work_text(result.facts.work), time_text(measured.seconds),
                                   spread, rate_text(result), share);
    if (before != nullptr && before->measured.seconds > 0.0)
        line += fmt::format("  {:.3f} x as fast", before->measured.seconds / measured.seconds);
    line += "\n";
    if (!result.parts.empty()) {
        std::string parts;
        for (const auto& [name, seconds] : result.parts)
            parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", name, time_text(seconds));
        line += fmt::format("{:<34} {}\n", "", parts);
    }
    return line;
}

std::string load_line(const Load& load) {
    std::string text = fmt::format(
        "load average {:.2f} before, {:.2f} after; other processes took {:.2f} cores, the "
        "hypervisor {:.1f} % of the time",
        load.average_begin[0], load.average_end[0], load.others_cores, load.steal_percent);
    if (load.others_cores > 0.1 || load.steal_percent > 2.0) {
        text +=
            ": the machine was not quiet, so times are worth little; shares of a limit, which was "
            "measured in the same moments, are worth more";
    }
    return text + "\n";
}

std::string to_json(const BenchReport& report) {
    json rows = json::array();
    for (const BenchResult& result : report.results) rows.push_back(json_of(result));
    const json whole = {{"format", kFormat},
                        {"machine",
                         {{"processor", report.machine.processor},
                          {"cores", report.machine.cores},
                          {"instruction_sets", report.machine.instruction_sets},
                          {"host", report.machine.host}}},
                        {"program", report.program},
                        {"device", report.device},
                        {"ranks", report.ranks},
                        {"load",
                         {{"others_cores", report.load.others_cores},
                          {"steal_percent", report.load.steal_percent},
                          {"average_begin", report.load.average_begin},
                          {"average_end", report.load.average_end}}},
                        {"rows", rows}};
    return whole.dump(1) + "\n";
}

BenchReport report_from_json(const std::string& text, const std::string& where) {
    try {
        const json whole = json::parse(text);
        require(whole.is_object() && whole.value("format", std::string()) == kFormat,
                "{}: is no file of rankwise bench --json (its format is not \"{}\")", where,
                kFormat);
        BenchReport report;
        const json& machine = whole.at("machine");
        report.machine = {
            .processor = machine.at("processor").get<std::string>(),
            .cores = machine.at("cores").get<std::int64_t>(),
            .instruction_sets = machine.at("instruction_sets").get<std::vector<std::string>>(),
            .host = machine.at("host").get<std::string>()};
        report.program = whole.at("program").get<std::string>();
        report.device = whole.at("device").get<std::string>();
        report.ranks = whole.at("ranks").get<std::int64_t>();
        const json& load = whole.at("load");
        report.load = {.others_cores = load.at("others_cores").get<double>(),
                       .steal_percent = load.at("steal_percent").get<double>(),
                       .average_begin = load.at("average_begin").get<std::array<double, 3>>(),
                       .average_end = load.at("average_end").get<std::array<double, 3>>()};
        for (const json& row : whole.at("rows")) report.results.push_back(result_of(row));
        return report;
    } catch (const json::exception& error) {
        throw BadInput(
            fmt::format("{}: is no file of rankwise bench --json ({})", where, error.what()));
    }
}

void require_comparable(const BenchReport& now, const BenchReport& before,
                        const std::string& where) {
    require(now.machine == before.machine,
            "{}: was measured on another machine ({}; this is {}), and times of two machines say "
            "nothing about the program: measure there again, or here with both versions",
            where, to_string(before.machine), to_string(now.machine));
    require(now.device == before.device && now.ranks == before.ranks,
            "{}: was measured with {} and {} rank{}, and this is {} and {}: compare like with like",
            where, before.device, before.ranks, before.ranks == 1 ? "" : "s", now.device,
            now.ranks);
}

const BenchResult* find_row(const BenchReport& report, const std::string& name) {
    const auto place = std::ranges::find(report.results, name, &BenchResult::name);
    return place == report.results.end() ? nullptr : &*place;
}

}  // namespace rankwise::app
