#include "src/text/json_fields.hpp"

#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "src/base/error.hpp"

namespace rankwise::text {

std::string read_file(const std::filesystem::path& path) {
    std::error_code error;
    require(std::filesystem::exists(path, error), "{}: there is no such file", path.string());
    require(!std::filesystem::is_directory(path, error), "{}: expected a file, found a folder",
            path.string());
    std::ifstream in(path, std::ios::binary);
    require(in.good(), "{}: cannot be opened for reading; check its permissions", path.string());
    std::ostringstream bytes;
    bytes << in.rdbuf();
    require(!in.bad(), "{}: reading fails", path.string());
    return std::move(bytes).str();
}

Json parse_object(std::string_view bytes, std::string_view where) {
    Json json;
    try {
        json = Json::parse(bytes);
    } catch (const Json::exception& error) {
        throw BadInput(fmt::format("{}: not JSON: {}", where, error.what()));
    }
    require(json.is_object(), "{}: expected a JSON object, found {}", where, json.type_name());
    return json;
}

const Json* member(const Json& object, const char* key) {
    if (!object.is_object()) return nullptr;
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
}

const Json& required_member(const Json& object, const char* key, std::string_view where) {
    const Json* found = member(object, key);
    require(found != nullptr, "{}: \"{}\" is missing", where, key);
    return *found;
}

std::string string_member(const Json& object, const char* key, std::string_view where) {
    const Json& value = required_member(object, key, where);
    require(value.is_string(), "{}: \"{}\" should be text, found {}", where, key,
            value.type_name());
    return value.get<std::string>();
}

std::string string_member_or(const Json& object, const char* key, std::string_view otherwise,
                             std::string_view where) {
    return member(object, key) == nullptr ? std::string(otherwise)
                                          : string_member(object, key, where);
}

bool bool_member_or(const Json& object, const char* key, bool otherwise, std::string_view where) {
    const Json* value = member(object, key);
    if (value == nullptr) return otherwise;
    require(value->is_boolean(), "{}: \"{}\" should be true or false, found {}", where, key,
            value->type_name());
    return value->get<bool>();
}

std::int32_t int_value(const Json& value, std::string_view where) {
    require(value.is_number_integer(), "{}: expected a whole number, found {}", where,
            value.dump());
    const bool fits = value.is_number_unsigned() &&
                      value.get<std::uint64_t>() <= std::numeric_limits<std::int32_t>::max();
    require(fits, "{}: expected a number from 0 to 2147483647, found {}", where, value.dump());
    return value.get<std::int32_t>();
}

std::int32_t int_member(const Json& object, const char* key, std::string_view where) {
    return int_value(required_member(object, key, where), fmt::format("{}: \"{}\"", where, key));
}

const Json& array_member(const Json& object, const char* key, std::string_view where) {
    const Json& value = required_member(object, key, where);
    require(value.is_array(), "{}: \"{}\" should be a list, found {}", where, key,
            value.type_name());
    return value;
}

}  // namespace rankwise::text
