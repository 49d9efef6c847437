#include "src/app/traces.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

namespace rankwise::app {
namespace {

using Json = nlohmann::ordered_json;
using update::TracePass;
using update::TraceRecord;

constexpr std::array kPasses{"forward", "head", "backward", "gradient"};

const char* name_of(TracePass pass) {
    return kPasses[static_cast<std::size_t>(pass)];
}

io::Path folder_of(const io::Path& traces, const TracedStep& step) {
    return traces / fmt::format("{}_{:08}", step.stage, step.step);
}

io::Path file_of(const io::Path& folder, int rank) {
    return folder / fmt::format("rank_{:05}.jsonl", rank);
}

/// Where a value stands among those of a step: ascending in the order of computation.
struct Place {
    std::int64_t update = 0;
    std::int64_t chunk = 0;  ///< the last: all of them
    TracePass pass = TracePass::forward;
    std::int64_t layer = 0;  ///< backward: negative, so that the last comes first
    std::int64_t order = 0;
    std::string op;
    std::int64_t parts = 0;
    std::int64_t part = 0;
    friend auto operator<=>(const Place&, const Place&) = default;
};

Place place_of(const TraceRecord& record) {
    constexpr std::int64_t kLast = std::numeric_limits<std::int64_t>::max();
    return {.update = record.update,
            .chunk = record.chunk < 0 ? kLast : record.chunk,
            .pass = record.pass,
            .layer = record.pass == TracePass::backward   ? -record.layer
                     : record.pass == TracePass::gradient ? 0
                                                          : record.layer,
            .order = record.order,
            .op = record.op,
            .parts = record.parts,
            .part = record.part};
}

std::string text_of(const TracedStep& step, const TraceRecord& record) {
    std::string text =
        fmt::format("stage {}, step {}, minibatch {}", step.stage, step.step, record.update + 1);
    if (record.chunk >= 0) text += fmt::format(", chunk {}", record.chunk);
    switch (record.pass) {
        case TracePass::forward:
            text += ", forward";
            break;
        case TracePass::head:
            return text + fmt::format(", head: {}", record.op);
        case TracePass::backward:
            text += ", backward";
            break;
        case TracePass::gradient:
            return text + fmt::format(", gradient of {}", record.op);
    }
    text += fmt::format(", layer {}: {}", record.layer, record.op);
    if (record.parts > 1)
        text += fmt::format(" (part {} of {} over tensor ranks)", record.part + 1, record.parts);
    return text;
}

/// A value of a step, and who computed it.
struct Value {
    TraceRecord record;
    std::vector<int> ranks;

    [[nodiscard]] std::string text() const {
        return fmt::format("{} on rank{} {}", to_hex(record.digest), ranks.size() > 1 ? "s" : "",
                           fmt::join(ranks, ", "));
    }
};
using Trace = std::map<Place, Value>;

TraceRecord record_of(const Json& line) {
    const auto pass = std::ranges::find(kPasses, line.at("pass").get<std::string>());
    const auto digest = uint128_from_hex(line.at("digest").get<std::string>());
    if (pass == kPasses.end() || !digest) throw std::out_of_range("an unknown pass or digest");
    return {.update = line.at("update").get<std::int64_t>(),
            .chunk = line.at("chunk").get<std::int64_t>(),
            .pass = static_cast<TracePass>(pass - kPasses.begin()),
            .layer = line.at("layer").get<std::int64_t>(),
            .order = line.at("order").get<std::int64_t>(),
            .op = line.at("op").get<std::string>(),
            .part = line.at("part").get<std::int64_t>(),
            .parts = line.at("parts").get<std::int64_t>(),
            .digest = *digest};
}

/// The first line of a rank's file.
Json header_of(const TracedStep& step, TraceRank rank, std::size_t records) {
    return {{"stage", step.stage},
            {"step", step.step},
            {"rank", rank.rank},
            {"ranks", rank.ranks},
            {"records", records}};
}

/// The lines of a rank's file, of which the first says how many follow.
std::vector<Json> lines_of(std::string_view text) {
    std::vector<Json> lines;
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        lines.push_back(Json::parse(text.substr(0, end)));
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    }
    return lines;
}

void add(Trace& trace, const TraceRecord& record, int rank) {
    const auto [at, is_new] = trace.emplace(place_of(record), Value{record, {rank}});
    if (is_new) return;
    if (record.pass != TracePass::gradient)
        throw std::out_of_range(record.op + " is recorded twice");
    at->second.record.digest += record.digest;
    at->second.ranks.push_back(rank);
}

/// Adds a rank's records. @param ranks  of the trace; 0: what the file says
/// @return of how many ranks it says that the trace is
int read_rank(io::FileSystem& fs, const io::Path& folder, const TracedStep& step, TraceRank rank,
              Trace& trace) {
    const io::Path path = file_of(folder, rank.rank);
    try {
        const std::vector<std::byte> bytes = io::read_file(fs, path);
        const std::vector<Json> lines =
            lines_of({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        if (lines.empty()) throw std::out_of_range("is empty");
        if (rank.ranks == 0) rank.ranks = lines.front().at("ranks").get<int>();
        if (lines.front() != header_of(step, rank, lines.size() - 1))
            throw std::out_of_range("is cut off, or of another trace than the files beside it");
        for (std::size_t line = 1; line < lines.size(); ++line)
            add(trace, record_of(lines[line]), rank.rank);
    } catch (const std::exception& error) {
        throw CorruptFile(
            fmt::format("{}: {}; traces of a step are whole or of no use: let the run "
                        "write it again",
                        path.string(), error.what()));
    }
    return rank.ranks;
}

Trace read_trace(io::FileSystem& fs, const io::Path& folder, const TracedStep& step) {
    Trace trace;
    const int ranks = read_rank(fs, folder, step, {0, 0}, trace);
    for (int rank = 1; rank < ranks; ++rank)
        (void)read_rank(fs, folder, step, {rank, ranks}, trace);
    return trace;
}

/// How a trace's values are split over tensor ranks. What another splits otherwise it does not
/// have.
std::set<std::int64_t> splits_of(const Trace& trace) {
    std::set<std::int64_t> splits;
    for (const auto& [place, value] : trace) splits.insert(place.parts);
    return splits;
}

}  // namespace

std::optional<TracedStep> traced_step(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return std::nullopt;
    TracedStep step{std::string(text.substr(0, colon)), 0};
    const std::string_view number = text.substr(colon + 1);
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), step.step);
    if (error != std::errc() || end != number.data() + number.size() || step.step < 1)
        return std::nullopt;
    return step;
}

void write_trace(io::FileSystem& fs, const io::Path& traces, const TracedStep& step, TraceRank rank,
                 const std::vector<TraceRecord>& records) {
    std::string lines = header_of(step, rank, records.size()).dump() + "\n";
    for (const TraceRecord& record : records) {
        lines += Json{{"update", record.update},
                      {"chunk", record.chunk},
                      {"pass", name_of(record.pass)},
                      {"layer", record.layer},
                      {"order", record.order},
                      {"op", record.op},
                      {"part", record.part},
                      {"parts", record.parts},
                      {"digest", to_hex(record.digest)}}
                     .dump() +
                 "\n";
    }
    io::replace_file(fs, file_of(folder_of(traces, step), rank.rank), io::bytes_of(lines));
}

void begin_trace(io::FileSystem& fs, const io::Path& traces, const TracedStep& step) {
    fs.remove_tree(folder_of(traces, step));
    fs.create_directories(folder_of(traces, step));
}

std::vector<TracedStep> traced_steps(io::FileSystem& fs, const io::Path& traces) {
    std::vector<TracedStep> steps;
    for (const std::string& name : fs.list(traces)) {
        const std::size_t last = name.rfind('_');
        if (last == std::string::npos) continue;
        std::string text = name;
        text[last] = ':';
        if (auto step = traced_step(text)) steps.push_back(std::move(*step));
    }
    return steps;
}

std::optional<Difference> compare_traces(io::FileSystem& fs, const io::Path& a, const io::Path& b,
                                         const TracedStep& step) {
    const Trace in_a = read_trace(fs, folder_of(a, step), step);
    const Trace in_b = read_trace(fs, folder_of(b, step), step);
    const std::set<std::int64_t> splits_a = splits_of(in_a);
    const std::set<std::int64_t> splits_b = splits_of(in_b);
    auto at_a = in_a.begin();
    auto at_b = in_b.begin();
    while (at_a != in_a.end() || at_b != in_b.end()) {
        const bool only_a = at_b == in_b.end() || (at_a != in_a.end() && at_a->first < at_b->first);
        const bool only_b = at_a == in_a.end() || (at_b != in_b.end() && at_b->first < at_a->first);
        if (only_a || only_b) {
            const Value& value = (only_a ? at_a++ : at_b++)->second;
            const std::int64_t parts = value.record.parts;
            if (parts > 0 && !(only_a ? splits_b : splits_a).contains(parts)) continue;
            const std::string there = value.text();
            return Difference{text_of(step, value.record), only_a ? there : "absent",
                              only_a ? "absent" : there};
        }
        if (at_a->second.record.digest != at_b->second.record.digest) {
            return Difference{text_of(step, at_a->second.record), at_a->second.text(),
                              at_b->second.text()};
        }
        ++at_a;
        ++at_b;
    }
    return std::nullopt;
}

}  // namespace rankwise::app
