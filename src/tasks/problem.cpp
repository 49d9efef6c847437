#include "src/tasks/problem.hpp"

#include <nlohmann/json.hpp>

#include "src/base/error.hpp"

namespace rankwise::tasks {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void wrong_type(std::string_view where, const std::string& key, const char* expected,
                             const Json& found) {
    std::string shown = found.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (shown.size() > 80) shown = shown.substr(0, 80) + "…";
    throw BadInput(fmt::format("{}: \"{}\" should be {}, found {}", where, key, expected, shown));
}

std::int64_t int_of(const Json& value, std::string_view where, const std::string& key,
                    const char* expected, const Json& whole) {
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() ||
                       value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX));
    if (!fits) wrong_type(where, key, expected, whole);
    return value.get<std::int64_t>();
}

std::string text_of(const Json& value, std::string_view where, const std::string& key) {
    if (!value.is_string()) wrong_type(where, key, "text", value);
    return value.get<std::string>();
}

// Columns that hold the right answer, by how sure that is. GSM8K and MATH say "answer", TRL
// "solution", verl "ground_truth", OpenRLHF "label".
constexpr const char* kReferenceKeys[] = {"answer", "solution", "ground_truth", "label"};

}  // namespace

std::string to_json_line(const Problem& problem) {
    Json line;
    line["id"] = problem.id;
    if (!problem.task.empty()) line["task"] = problem.task;
    line["prompt"] = problem.prompt;
    if (!problem.nums.empty()) line["nums"] = problem.nums;
    if (problem.target) line["target"] = *problem.target;
    if (!problem.reference.empty()) line["answer"] = problem.reference;
    for (const auto& [key, value] : problem.columns) {
        if (!line.contains(key)) line[key] = Json::parse(value);
    }
    return line.dump();
}

Problem problem_from_json_line(std::string_view line, std::uint64_t default_id,
                               std::string_view where) {
    Json row;
    try {
        row = Json::parse(line);
    } catch (const Json::exception& error) {
        throw BadInput(fmt::format("{}: not JSON: {}", where, error.what()));
    }
    require(row.is_object(), "{}: expected a JSON object, found {}", where, row.type_name());
    Problem problem;
    problem.id = default_id;
    for (const auto& [key, value] : row.items()) {
        if (value.is_null()) continue;
        if (key == "id" && value.is_number_unsigned()) {
            problem.id = value.get<std::uint64_t>();
        } else if (key == "task") {
            problem.task = text_of(value, where, key);
        } else if (key == "prompt") {
            problem.prompt = text_of(value, where, key);
        } else if (key == "nums") {
            constexpr const char* kExpected = "a list of whole numbers";
            if (!value.is_array()) wrong_type(where, key, kExpected, value);
            for (const Json& number : value)
                problem.nums.push_back(int_of(number, where, key, kExpected, value));
        } else if (key == "target") {
            problem.target = int_of(value, where, key, "a whole number", value);
        } else {
            problem.columns.emplace(key, value.dump());
        }
    }
    for (const char* key : kReferenceKeys) {
        const auto found = row.find(key);
        if (found == row.end() || !found->is_string()) continue;
        problem.reference = found->get<std::string>();
        if (std::string_view(key) == "answer") problem.columns.erase(key);
        break;
    }
    return problem;
}

}  // namespace rankwise::tasks
