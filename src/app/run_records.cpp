#include "src/app/run_records.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "src/base/error.hpp"

namespace rankwise::app {
namespace {

constexpr const char* kPlannedMemory = "memory/planned_bytes";
constexpr const char* kPeakMemory = "memory/peak_bytes";
const std::string kPlannedTraffic = "traffic/planned_bytes/";
const std::string kSentTraffic = "traffic/sent_bytes/";

using Json = nlohmann::ordered_json;

/// Calls `row` for each line, a JSON object with `keys`.
void for_each_line(io::FileSystem& fs, const io::Path& path, const std::vector<const char*>& keys,
                   const std::function<void(const Json&, std::int64_t line)>& row) {
    const std::string text = read_text(fs, path);
    std::int64_t number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        ++number;
        const std::size_t end = text.find('\n', begin);
        if (end == std::string::npos) return;  // torn: lines are written whole, with their end
        const std::string_view line(text.data() + begin, end - begin);
        begin = end + 1;
        if (line.empty()) continue;
        const Json json = Json::parse(line, nullptr, false);
        const auto has = [&](const char* key) {
            return json.is_object() && json.contains(key) &&
                   (key == std::string_view("stage") ? json[key].is_string()
                                                     : json[key].is_number_integer());
        };
        if (!std::ranges::all_of(keys, has)) {
            throw CorruptFile(fmt::format(
                "{}:{}: expected a JSON object with \"{}\", found '{}'; the file was altered or is "
                "not of a run",
                path.string(), number, fmt::join(keys, "\" and \""), line.substr(0, 80)));
        }
        row(json, number);
    }
}

template <class T>
const T* find(const std::vector<std::pair<std::string, T>>& values, std::string_view name) {
    for (const auto& value : values) {
        if (value.first == name) return &value.second;
    }
    return nullptr;
}

}  // namespace

std::string read_text(io::FileSystem& fs, const io::Path& path) {
    const std::vector<std::byte> bytes = io::read_file(fs, path);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

const double* MetricRecord::number(std::string_view name) const {
    return find(numbers, name);
}
const std::string* MetricRecord::text(std::string_view name) const {
    return find(texts, name);
}

std::vector<MetricRecord> read_metrics(io::FileSystem& fs, const io::Path& path) {
    std::vector<MetricRecord> records;
    for_each_line(fs, path, {"stage", "step"}, [&records](const Json& json, std::int64_t line) {
        MetricRecord record{.stage = json["stage"].get<std::string>(),
                            .step = json["step"].get<std::int64_t>(),
                            .line = line};
        for (const auto& [key, value] : json.items()) {
            if (key == "stage" || key == "step") continue;
            if (key == "record") {
                record.evaluation = value == "evaluation";
            } else if (value.is_number()) {
                record.numbers.emplace_back(key, value.get<double>());
            } else if (value.is_boolean()) {
                record.numbers.emplace_back(key, value.get<bool>() ? 1.0 : 0.0);
            } else if (value.is_string()) {
                record.texts.emplace_back(key, value.get<std::string>());
            }
        }
        records.push_back(std::move(record));
    });
    return records;
}

std::string to_json_line(const SampleRecord& record) {
    Json json{{"stage", record.stage},
              {"step", record.step},
              {"prompt", record.sample.prompt},
              {"answer", record.sample.answer},
              {"reward", record.sample.reward}};
    if (record.evaluation) json["record"] = "evaluation";
    json["right"] = record.right;
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<SampleRecord> read_samples(io::FileSystem& fs, const io::Path& path) {
    std::vector<SampleRecord> records;
    if (!fs.exists(path)) return records;
    for_each_line(fs, path, {"stage", "step"}, [&records](const Json& json, std::int64_t) {
        SampleRecord record{.stage = json["stage"].get<std::string>(),
                            .step = json["step"].get<std::int64_t>()};
        record.sample.prompt = json.value("prompt", std::string());
        record.sample.answer = json.value("answer", std::string());
        record.sample.reward = json.contains("reward") && json["reward"].is_number()
                                   ? json["reward"].get<double>()
                                   : 0.0;
        record.evaluation = json.value("record", std::string()) == "evaluation";
        record.right = json.value("right", false);
        records.push_back(std::move(record));
    });
    return records;
}

io::MetricLine metric_line(const MemoryRecord& record) {
    io::MetricLine line{
        {"stage", record.stage}, {kPlannedMemory, record.planned}, {kPeakMemory, record.peak}};
    for (const TrafficRecord& row : record.sent) {
        const std::string name = row.phase + "/" + row.axis;
        line.emplace_back(kPlannedTraffic + name, row.planned);
        line.emplace_back(kSentTraffic + name, row.sent);
    }
    return line;
}

std::vector<MemoryRecord> read_memory(io::FileSystem& fs, const io::Path& path) {
    std::vector<MemoryRecord> records;
    if (!fs.exists(path)) return records;
    const auto read = [&](const Json& json, std::int64_t) {
        MemoryRecord record{json["stage"].get<std::string>(),
                            json[kPlannedMemory].get<std::int64_t>(),
                            json[kPeakMemory].get<std::int64_t>()};
        for (const auto& [key, value] : json.items()) {
            if (!key.starts_with(kPlannedTraffic) || !value.is_number_integer()) continue;
            const std::string name = key.substr(kPlannedTraffic.size());
            const std::size_t slash = name.find('/');
            if (slash == std::string::npos) continue;
            const auto sent = json.find(kSentTraffic + name);
            if (sent == json.end() || !sent->is_number_integer()) continue;
            record.sent.push_back({name.substr(0, slash), name.substr(slash + 1),
                                   value.get<std::int64_t>(), sent->get<std::int64_t>()});
        }
        const auto same = std::ranges::find(records, record.stage, &MemoryRecord::stage);
        if (same == records.end()) {
            records.push_back(std::move(record));
        } else {  // the run was stopped in this stage
            same->planned = std::max(same->planned, record.planned);
            same->peak = std::max(same->peak, record.peak);
            for (const TrafficRecord& row : record.sent) raise_to(same->sent, row);
        }
    };
    for_each_line(fs, path, {"stage", kPlannedMemory, kPeakMemory}, read);
    return records;
}

SampleWriter::SampleWriter(io::FileSystem& fs, const io::Path& path,
                           const std::optional<io::MetricPosition>& resume) {
    std::string kept;
    if (resume && fs.exists(path)) {
        bool stage_seen = false;
        for (const SampleRecord& record : read_samples(fs, path)) {
            const bool same = record.stage == resume->stage;
            if ((same && record.step > resume->step) || (!same && stage_seen)) continue;
            stage_seen = stage_seen || same;
            kept += to_json_line(record) + "\n";
        }
    }
    io::replace_file(fs, path, io::bytes_of(kept));
    file_ = fs.open(path, io::OpenMode::update);
    end_ = static_cast<std::int64_t>(kept.size());
}

void SampleWriter::append(const SampleRecord& record) {
    const std::string line = to_json_line(record) + "\n";
    file_->write_at(end_, io::bytes_of(line));
    end_ += static_cast<std::int64_t>(line.size());
}

}  // namespace rankwise::app
