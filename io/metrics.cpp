#include "io/metrics.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace rankwise::io {
namespace {

using nlohmann::json;

std::string quoted(const std::string& text) {
    return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string number(double value) {
    if (!std::isfinite(value)) return "null";
    std::array<char, 32> digits{};
    const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
    std::string text(digits.data(), end);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
}

std::string to_text(const MetricValue& value) {
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
    if (const auto* real = std::get_if<double>(&value)) return number(*real);
    if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
    return quoted(std::get<std::string>(value));
}

/// Whether lines from this one on are later than `resume`.
class LaterThan {
  public:
    explicit LaterThan(const MetricPosition& resume) : resume_(resume) {}
    bool operator()(const json& line) {
        const auto stage = line.find("stage");
        if (stage == line.end() || !stage->is_string()) return false;
        if (stage->get_ref<const std::string&>() != resume_.stage) return seen_stage_;
        seen_stage_ = true;
        const auto step = line.find("step");
        return step != line.end() && step->is_number_integer() &&
               step->get<std::int64_t>() > resume_.step;
    }

  private:
    MetricPosition resume_;
    bool seen_stage_ = false;
};

}  // namespace

std::string to_json(const MetricLine& line) {
    std::string text = "{";
    for (const auto& [key, value] : line) {
        if (text.size() > 1) text += ", ";
        text += quoted(key) + ": " + to_text(value);
    }
    return text + "}";
}

MetricsWriter::MetricsWriter(FileSystem& fs, const Path& path,
                             const std::optional<MetricPosition>& resume)
    : file_(fs.open(path, OpenMode::update)) {
    std::string text(static_cast<std::size_t>(file_->size()), '\0');
    text.resize(static_cast<std::size_t>(
        file_->read_at(0, std::as_writable_bytes(std::span(text.data(), text.size())))));
    std::optional<LaterThan> later;
    if (resume) later.emplace(*resume);
    std::size_t kept = 0;
    for (std::int64_t number = 1; kept < text.size(); ++number) {
        const std::size_t newline = text.find('\n', kept);
        if (newline == std::string::npos) break;  // torn: a run died in the middle of it
        const json object =
            json::parse(text.begin() + static_cast<std::ptrdiff_t>(kept),
                        text.begin() + static_cast<std::ptrdiff_t>(newline), nullptr, false);
        if (!object.is_object()) {
            const bool last = newline + 1 == text.size();
            if (!last) {
                throw CorruptFile(fmt::format(
                    "{}:{}: the line is no JSON object: the file was altered, or is not of a run; "
                    "mend the line, or move the file away (metrics of earlier steps go with it)",
                    path.string(), number));
            }
            break;
        }
        if (later && (*later)(object)) break;
        kept = newline + 1;
    }
    end_ = static_cast<std::int64_t>(kept);
    if (kept < text.size()) file_->truncate(end_);
}

void MetricsWriter::append(const MetricLine& line) {
    const std::string text = to_json(line) + "\n";
    file_->write_at(end_, bytes_of(text));
    end_ += static_cast<std::int64_t>(text.size());
}

void MetricsWriter::sync() {
    file_->sync();
}

}  // namespace rankwise::io
