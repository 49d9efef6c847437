#include "io/json_lines.hpp"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

namespace rankwise::io {
namespace {

using nlohmann::json;

const json& field(const json& object, const std::string& key, const std::string& where) {
    const auto found = object.find(key);
    if (found != object.end()) return *found;
    std::vector<std::string> keys;
    for (const auto& [name, value] : object.items()) keys.push_back(name);
    throw BadInput(
        fmt::format("{}: there is no field '{}', only: {}; add it, or name the right field in "
                    "the recipe",
                    where, key, fmt::join(keys, ", ")));
}

[[noreturn]] void wrong_type(const json& value, const std::string& key, const std::string& where,
                             std::string_view expected) {
    std::string shown = value.dump(-1, ' ', false, json::error_handler_t::replace);
    if (shown.size() > 80) shown = shown.substr(0, 80) + "…";
    throw BadInput(fmt::format("{}: field '{}' must be {}, found {}", where, key, expected, shown));
}

}  // namespace

void read_json_lines(const Path& path,
                     const std::function<void(const json& object, const std::string& where)>& row) {
    std::ifstream file(path, std::ios::binary);
    require(file.is_open() && !std::filesystem::is_directory(path),
            "{}: cannot open the file; check the path in the recipe", path.string());
    std::string line;
    std::int64_t number = 0;
    std::int64_t rows = 0;
    while (std::getline(file, line)) {
        const std::string where = fmt::format("{}:{}", path.string(), ++number);
        require(static_cast<std::int64_t>(line.size()) <= kMaxJsonLine,
                "{}: the line has {} bytes, {} are the most; is this a JSON-lines file?", where,
                line.size(), kMaxJsonLine);
        if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // a byte order mark
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        json object;
        try {
            object = json::parse(line);
        } catch (const json::exception& problem) {
            throw BadInput(fmt::format("{}: the line is no JSON: {}; mend or remove it", where,
                                       problem.what()));
        }
        require(object.is_object(), "{}: expected a JSON object {{…}}, found {}", where,
                object.type_name());
        row(object, where);
        ++rows;
    }
    if (file.bad())
        throw EnvironmentError(
            fmt::format("{}: reading failed after line {}", path.string(), number));
    require(rows > 0, "{}: the file has no rows; expected one JSON object a line", path.string());
}

std::string text_field(const json& object, const std::string& key, const std::string& where) {
    const json& value = field(object, key, where);
    if (!value.is_string()) wrong_type(value, key, where, "text");
    return value.get<std::string>();
}

std::int64_t int_field(const json& object, const std::string& key, const std::string& where) {
    const json& value = field(object, key, where);
    const bool too_large = value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX;
    if (!value.is_number_integer() || too_large) wrong_type(value, key, where, "a 64-bit integer");
    return value.get<std::int64_t>();
}

double number_field(const json& object, const std::string& key, const std::string& where) {
    const json& value = field(object, key, where);
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
        wrong_type(value, key, where, "a finite number");
    }
    return value.get<double>();
}

}  // namespace rankwise::io
